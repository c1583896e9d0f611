//! Stored filters ("Filtering").

use ruma::api::client::filter::{create_filter, get_filter};
use serde_json::Value;

use super::with::{With, own};
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![endpoint(User, Class::Write, create), endpoint(User, Class::Read, read)]
}

async fn create(call: Call<Session>, request: With<create_filter::v3::Request, Value>) -> Result<create_filter::v3::Response> {
    own(&call.session, &request.user_arg(0)?)?;
    let pending = users::filters::create(&call.server.store, call.session.user, request.body)?;
    Ok(create_filter::v3::Response::new(pending.durable().await?))
}

async fn read(call: Call<Session>, request: get_filter::v3::Request) -> Result<Json<Value>> {
    own(&call.session, &request.user_id)?;
    let filter = users::filters::filter(&call.snapshot(), call.session.user, &request.filter_id)?;
    filter.map(Json).ok_or_else(|| Error::not_found("There is no such filter"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn a_filter_is_stored_for_its_user() {
        let hearth = Hearth::start();
        let (alice, bob) = (hearth.register("alice").await, hearth.register("bob").await);
        let path = format!("/_matrix/client/v3/user/{}/filter", alice.user_id);
        let filter = json!({ "room": { "timeline": { "limit": 10 } }, "org.example": 1 });
        let id = alice.post(&path, filter.clone()).await.ok()["filter_id"].as_str().unwrap_or_default().to_owned();
        assert_eq!(alice.get(&format!("{path}/{id}")).await.ok(), filter);
        alice.get(&format!("{path}/999")).await.fails(404, "M_NOT_FOUND");
        alice.post(&path, json!({ "room": 1 })).await.fails(400, "M_BAD_JSON");
        bob.get(&format!("{path}/{id}")).await.fails(403, "M_FORBIDDEN");
        bob.post(&path, filter).await.fails(403, "M_FORBIDDEN");
    }
}
