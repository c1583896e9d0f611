//! Two servers over real sockets and real TLS, with an authority of their own.

use std::{net::TcpListener, path::Path, sync::Arc};

use federation::{Transport, Wire};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    Config, SystemClock,
    config::{Kind, Listener, Tls},
    listen,
    testing::Hearth,
};

/// A server at an address of this machine, which is also its name.
async fn server(folder: &Path, tls: &Tls, tasks: &mut JoinSet<()>) -> Hearth {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let federation = federation::Config {
        ca_certificates: Some(folder.join("cert.pem")),
        allowed_networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..federation::Config::default()
    };
    let transport = Wire::new(&federation, Arc::new(SystemClock::default()), &mut StdRng::seed_from_u64(1)).unwrap();
    let transport: Arc<dyn Transport> = Arc::new(transport);
    let listener = Listener { kind: Kind::Federation, address, tls: Some(tls.clone()), ..Listener::default() };
    let config = Config { listeners: vec![listener], ..Config::default() };
    let hearth = Hearth::wired(transport, &address.to_string(), config, federation);
    let listening = listen::bind(&hearth.server).await.unwrap();
    tasks.spawn(listening.run());
    hearth
}

#[tokio::test]
async fn servers_federate_over_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let mut tasks = JoinSet::new();
    let one = server(folder.path(), &tls, &mut tasks).await;
    let two = server(folder.path(), &tls, &mut tasks).await;
    let (alice, bob) = (one.register("alice").await, two.register("bob").await);
    let path = format!("/_matrix/client/v3/profile/{}", alice.user_id);
    alice.put(&format!("{path}/displayname"), json!({ "displayname": "Alice" })).await.ok();
    assert_eq!(two.get(&path).await.ok(), json!({ "displayname": "Alice" }));
    let upload = alice.ask(http::Method::POST, "/_matrix/media/v3/upload").body(vec![7; 300_000]).await.ok();
    let uri = upload["content_uri"].as_str().unwrap().strip_prefix("mxc://").unwrap().to_owned();
    let file = bob.get(&format!("/_matrix/client/v1/media/download/{uri}")).await;
    assert_eq!((file.status.as_u16(), file.body.len()), (200, 300_000));
}
