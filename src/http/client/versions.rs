//! `GET /_matrix/client/versions`: which versions of the specification and which experiments are served.

use ruma::api::client::discovery::get_supported_versions::{Request, Response};

use crate::{
    Call, Class, Result, Route,
    auth::{Optional, Session},
    endpoint,
};

/// All versions whose mandatory endpoints and rules Hearth serves.
const VERSIONS: [&str; 19] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13", "v1.14", "v1.15",
    "v1.16", "v1.17", "v1.18", "v1.19",
];

/// Experiments that clients look for by name. A noun that serves one adds its line.
const UNSTABLE_FEATURES: [(&str, bool); 0] = [];

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(Optional, Class::Free, versions)]
}

async fn versions(_: Call<Option<Session>>, _: Request) -> Result<Response> {
    let mut response = Response::new(VERSIONS.map(Into::into).into());
    response.unstable_features = UNSTABLE_FEATURES.into_iter().map(|(name, on)| (name.to_owned(), on)).collect();
    Ok(response)
}

#[cfg(test)]
mod tests {
    use crate::testing::Hearth;

    #[tokio::test]
    async fn anyone_may_ask_for_the_versions() {
        let hearth = Hearth::start();
        let versions = hearth.get("/_matrix/client/versions").await.ok();
        assert_eq!(versions["versions"][18], "v1.19");
        hearth.get("/_matrix/client/versions").token("no such token").await.fails(401, "M_UNKNOWN_TOKEN");
    }
}
