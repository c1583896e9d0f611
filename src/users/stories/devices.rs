use super::*;
use crate::{Error, devices};

#[test]
fn devices_are_listed_named_and_deleted_with_their_sessions() {
    let store = store();
    let (alice, login) = register(&store, "alice");
    let number = session(&store, &login, 0).unwrap().device;
    devices::seen(&store, alice, number, "192.0.2.1", 1_000).unwrap();
    devices::seen(&store, alice, number, "192.0.2.2", 2_000).unwrap();
    devices::rename(&store, alice, "PHONE".into(), "my phone", &[ROOM]).unwrap().wait().unwrap();
    let phone = devices::device(&store.snapshot(), alice, "PHONE".into()).unwrap().unwrap();
    assert_eq!(phone.display_name.as_deref(), Some("my phone"));
    let seen = phone.seen.unwrap();
    assert_eq!((seen.at_ms, seen.ip.as_str()), (1_000, "192.0.2.1"), "once a minute");
    devices::delete(&store, alice, &["PHONE".into(), "NONE".into()], &[ROOM]).unwrap().wait().unwrap();
    assert!(matches!(session(&store, &login, 1), Err(Error::UnknownToken { .. })));
    devices::seen(&store, alice, number, "192.0.2.3", 900_000).unwrap();
    store.transact(&[], |_| Ok::<_, store::Error>(())).unwrap().wait().unwrap();
    assert_eq!(store.dump(&[devices::TABLES[0], devices::TABLES[2]]).unwrap(), "devices\ndevice_seen\n", "no trace of it");
}

#[test]
fn another_user_has_devices_of_the_same_ids() {
    let store = store();
    let ((alice, of_alice), (bob, of_bob)) = (register(&store, "alice"), register(&store, "bob"));
    devices::delete(&store, alice, &["PHONE".into()], &[]).unwrap().wait().unwrap();
    assert!(session(&store, &of_alice, 0).is_err() && session(&store, &of_bob, 0).is_ok());
    assert_eq!(devices::devices(&store.snapshot(), bob).unwrap().len(), 1);
}

#[test]
fn hostile_ids_and_names_are_refused() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let long = "x".repeat(513);
    for (id, name) in [("", "n"), ("a\nb", "n"), (&long[..256], "n"), ("A", long.as_str())] {
        let login = Login { device_id: Some(id.into()), display_name: Some(name), ..Login::default() };
        assert!(
            matches!(sessions::login(&store, &mut rand::rng(), alice, login, &config(), 0), Err(Error::InvalidParam(_))),
            "{id:?}"
        );
    }
    assert!(matches!(devices::rename(&store, alice, "PHONE".into(), &long, &[]), Err(Error::InvalidParam(_))));
    assert!(matches!(devices::rename(&store, alice, "NONE".into(), "n", &[]), Err(Error::NotFound(_))));
    let many = vec!["D".into(); devices::DELETED_MAX + 1];
    assert!(matches!(devices::delete(&store, alice, &many, &[]), Err(Error::TooLarge { .. })));
}
