//! The caller's push rules ("Push Rules: API").

use ruma::api::client::push::{
    delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, get_pushrules_all, get_pushrules_global_scope,
    set_pushrule, set_pushrule_actions, set_pushrule_enabled,
};
use users::push_rules::{self, Listed, Place, Scopes};

use crate::{
    Call, Class, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(User, Class::Read, all),
        endpoint(User, Class::Read, global),
        endpoint(User, Class::Read, read),
        endpoint(User, Class::Write, set),
        endpoint(User, Class::Write, delete),
        endpoint(User, Class::Read, enabled),
        endpoint(User, Class::Write, set_enabled),
        endpoint(User, Class::Read, actions),
        endpoint(User, Class::Write, set_actions),
    ]
}

async fn all(call: Call<Session>, _: get_pushrules_all::v3::Request) -> Result<Json<Scopes>> {
    Ok(Json(push_rules::rules(&call.snapshot(), call.session.user)?.into()))
}

async fn global(call: Call<Session>, _: get_pushrules_global_scope::v3::Request) -> Result<Json<Listed>> {
    Ok(Json(push_rules::rules(&call.snapshot(), call.session.user)?.into()))
}

async fn read(call: Call<Session>, request: get_pushrule::v3::Request) -> Result<get_pushrule::v3::Response> {
    let rule = push_rules::rule(&call.snapshot(), call.session.user, request.kind, &request.rule_id)?;
    Ok(get_pushrule::v3::Response::new(rule.into()))
}

async fn set(call: Call<Session>, request: set_pushrule::v3::Request) -> Result<set_pushrule::v3::Response> {
    let set_pushrule::v3::Request { rule, before, after, .. } = request;
    let place = Place { before: before.as_deref(), after: after.as_deref() };
    push_rules::put(&call.server.store, call.session.user, rule, place)?.durable().await?;
    Ok(set_pushrule::v3::Response::new())
}

async fn delete(call: Call<Session>, request: delete_pushrule::v3::Request) -> Result<delete_pushrule::v3::Response> {
    push_rules::delete(&call.server.store, call.session.user, request.kind, &request.rule_id)?.durable().await?;
    Ok(delete_pushrule::v3::Response::new())
}

async fn enabled(call: Call<Session>, request: get_pushrule_enabled::v3::Request) -> Result<get_pushrule_enabled::v3::Response> {
    let enabled = push_rules::is_enabled(&call.snapshot(), call.session.user, request.kind, &request.rule_id)?;
    Ok(get_pushrule_enabled::v3::Response::new(enabled))
}

async fn set_enabled(
    call: Call<Session>,
    request: set_pushrule_enabled::v3::Request,
) -> Result<set_pushrule_enabled::v3::Response> {
    let set_pushrule_enabled::v3::Request { kind, rule_id, enabled, .. } = request;
    push_rules::set_enabled(&call.server.store, call.session.user, kind, &rule_id, enabled)?.durable().await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

async fn actions(call: Call<Session>, request: get_pushrule_actions::v3::Request) -> Result<get_pushrule_actions::v3::Response> {
    let actions = push_rules::actions(&call.snapshot(), call.session.user, request.kind, &request.rule_id)?;
    Ok(get_pushrule_actions::v3::Response::new(actions))
}

async fn set_actions(
    call: Call<Session>,
    request: set_pushrule_actions::v3::Request,
) -> Result<set_pushrule_actions::v3::Response> {
    let set_pushrule_actions::v3::Request { kind, rule_id, actions, .. } = request;
    push_rules::set_actions(&call.server.store, call.session.user, kind, &rule_id, actions)?.durable().await?;
    Ok(set_pushrule_actions::v3::Response::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    const RULES: &str = "/_matrix/client/v3/pushrules";

    #[tokio::test]
    async fn rules_are_made_changed_and_deleted() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        let told = alice.get("/_matrix/client/v3/sync").await.ok()["account_data"]["events"][0]["content"]["global"].clone();
        assert_eq!(told, alice.get(&format!("{RULES}/global/")).await.ok());
        for kind in ["content", "override", "room", "sender", "underride"] {
            assert!(told[kind].is_array(), "clients expect a list of each kind, be it empty: {kind}");
        }
        let cake = format!("{RULES}/global/content/cake");
        alice.put(&cake, json!({ "pattern": "cake*lie", "actions": ["notify"] })).await.ok();
        let rule = alice.get(&cake).await.ok();
        let expected =
            json!({ "rule_id": "cake", "default": false, "enabled": true, "actions": ["notify"], "pattern": "cake*lie" });
        assert_eq!(rule, expected);
        alice.put(&format!("{cake}/enabled"), json!({ "enabled": false })).await.ok();
        assert_eq!(alice.get(&format!("{cake}/enabled")).await.ok(), json!({ "enabled": false }));
        alice.put(&format!("{cake}/actions"), json!({ "actions": [] })).await.ok();
        assert_eq!(alice.get(&format!("{cake}/actions")).await.ok(), json!({ "actions": [] }));
        let all = alice.get(&format!("{RULES}/")).await.ok();
        assert_eq!(all["global"]["content"][0]["rule_id"], "cake");
        assert_eq!(all["global"]["override"][0]["rule_id"], ".m.rule.master");
        alice.delete(&cake).await.ok();
        alice.get(&cake).await.fails(404, "M_NOT_FOUND");
    }

    #[tokio::test]
    async fn t29_hostile_rules_and_places_are_refused() {
        let hearth = Hearth::start();
        let alice = hearth.register("alice").await;
        let rule = json!({ "pattern": "x", "actions": ["notify"] });
        let put = |path: &str| alice.put(&format!("{RULES}/global/{path}"), rule.clone());
        put("content/a?after=none").await.fails(404, "M_NOT_FOUND");
        put("content/a?after=a").await.fails(404, "M_NOT_FOUND");
        put("content/a?before=.m.rule.master").await.fails(400, "M_INVALID_PARAM");
        put("content/.mine").await.fails(400, "M_INVALID_PARAM");
        put("content/a%2Fb").await.fails(400, "M_INVALID_PARAM");
        put("magic/a").await.fails(400, "M_INVALID_PARAM");
        put("sender/nobody").await.fails(400, "M_INVALID_PARAM");
        alice.delete(&format!("{RULES}/global/override/.m.rule.master")).await.fails(400, "M_INVALID_PARAM");
        alice.put(&format!("{RULES}/global/content/a"), json!({ "actions": [] })).await.fails(400, "M_MISSING_PARAM");
        let long = json!({ "pattern": "*".repeat(600), "actions": [] });
        alice.put(&format!("{RULES}/global/content/a"), long).await.fails(413, "M_TOO_LARGE");
        let id = format!("{RULES}/global/sender/@{}:x/enabled", "u".repeat(300));
        alice.put(&id, json!({ "enabled": true })).await.fails(404, "M_NOT_FOUND");
    }
}
