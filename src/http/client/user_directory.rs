//! Looking for users by name ("User Directory").

use ruma::{OwnedMxcUri, api::client::user_directory::search_users::v3 as search_users};
use users::directory::Listed;
use views::user_directory;

use crate::{
    Call, Class, Result, Route,
    auth::{Session, User},
    endpoint,
};

/// The most users in an answer.
const LIMIT_MAX: usize = 100;

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Search, search)]
}

async fn search(call: Call<Session>, request: search_users::Request) -> Result<search_users::Response> {
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(LIMIT_MAX).min(LIMIT_MAX);
    let found = user_directory::search(&call.snapshot(), call.session.user, &request.search_term, limit)?;
    Ok(search_users::Response::new(found.users.into_iter().map(told).collect(), found.limited))
}

fn told(listed: Listed) -> search_users::User {
    let mut told = search_users::User::new(listed.user_id);
    told.display_name = listed.displayname;
    told.avatar_url = listed.avatar_url.map(OwnedMxcUri::from);
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    const SEARCH: &str = "/_matrix/client/v3/user_directory/search";

    #[tokio::test]
    async fn users_are_found_by_name_with_their_profiles() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let profile = format!("/_matrix/client/v3/profile/{}", bob.user_id);
        bob.put(&format!("{profile}/displayname"), json!({ "displayname": "Robert" })).await.ok();
        bob.put(&format!("{profile}/avatar_url"), json!({ "avatar_url": "mxc://hearth.test/bob" })).await.ok();
        let robert = json!({ "user_id": bob.user_id, "display_name": "Robert", "avatar_url": "mxc://hearth.test/bob" });
        let found = alice.post(SEARCH, json!({ "search_term": "rob" })).await.ok();
        assert_eq!(found, json!({ "results": [robert], "limited": false }));
        let found = bob.post(SEARCH, json!({ "search_term": "ali", "limit": 0 })).await.ok();
        assert_eq!(found, json!({ "results": [], "limited": true }));
        alice.post(SEARCH, json!({})).await.fails(400, "M_MISSING_PARAM");
        hearth.post(SEARCH, json!({ "search_term": "rob" })).await.fails(401, "M_MISSING_TOKEN");
    }
}
