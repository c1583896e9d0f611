//! Suspending and locking accounts, by administrators ("Server Administration").

use ruma::{
    UserId,
    api::client::admin::{is_user_locked, is_user_suspended, lock_user, suspend_user},
};
use store::{Read, UserNo};
use users::accounts::{self, Account};

use crate::{
    Call, Class, Error, Result, Route,
    auth::{Admin, Session},
    endpoint,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(Admin, Class::Admin, is_suspended),
        endpoint(Admin, Class::Admin, suspend),
        endpoint(Admin, Class::Admin, is_locked),
        endpoint(Admin, Class::Admin, lock),
    ]
}

/// A user whom the caller may moderate: of this server, not gone, and no administrator, which the caller is too.
fn moderated(call: &Call<Session>, db: &impl Read, user: &UserId) -> Result<(UserNo, Account)> {
    if user.server_name() != call.server.name {
        return Err(Error::invalid_param("The user is of another server"));
    }
    let found = accounts::find(db, user)?.filter(|(_, account)| !account.deactivated);
    let found = found.ok_or_else(|| Error::not_found("There is no such user"))?;
    if found.1.admin { Err(Error::forbidden("The user is an administrator")) } else { Ok(found) }
}

async fn is_suspended(call: Call<Session>, request: is_user_suspended::v1::Request) -> Result<is_user_suspended::v1::Response> {
    let (_, account) = moderated(&call, &call.snapshot(), &request.user_id)?;
    Ok(is_user_suspended::v1::Response::new(account.suspended))
}

async fn suspend(call: Call<Session>, request: suspend_user::v1::Request) -> Result<suspend_user::v1::Response> {
    let (user, _) = moderated(&call, &call.snapshot(), &request.user_id)?;
    accounts::set_suspended(&call.server.store, user, request.suspended)?.durable().await?;
    Ok(suspend_user::v1::Response::new(request.suspended))
}

async fn is_locked(call: Call<Session>, request: is_user_locked::v1::Request) -> Result<is_user_locked::v1::Response> {
    let (_, account) = moderated(&call, &call.snapshot(), &request.user_id)?;
    Ok(is_user_locked::v1::Response::new(account.locked))
}

async fn lock(call: Call<Session>, request: lock_user::v1::Request) -> Result<lock_user::v1::Response> {
    let (user, _) = moderated(&call, &call.snapshot(), &request.user_id)?;
    accounts::set_locked(&call.server.store, user, request.locked)?.durable().await?;
    Ok(lock_user::v1::Response::new(request.locked))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Hearth;

    #[tokio::test]
    async fn administrators_suspend_and_lock_others() {
        let hearth = Hearth::start();
        let (root, other) = (hearth.register_admin("root").await, hearth.register_admin("other").await);
        let alice = hearth.register("alice").await;
        let sync = "/_matrix/client/v3/sync";
        for (what, key) in [("suspend", "suspended"), ("lock", "locked")] {
            let of = |user: &str| format!("/_matrix/client/v1/admin/{what}/{user}");
            let path = of(&alice.user_id);
            alice.get(&path).await.fails(403, "M_FORBIDDEN");
            alice.put(&path, json!({ key: true })).await.fails(403, "M_FORBIDDEN");
            assert_eq!(root.get(&path).await.ok(), json!({ key: false }));
            assert_eq!(root.put(&path, json!({ key: true })).await.ok(), json!({ key: true }));
            assert_eq!(root.get(&path).await.ok(), json!({ key: true }));
            if what == "lock" {
                assert_eq!(alice.get(sync).await.fails(401, "M_USER_LOCKED")["soft_logout"], true);
            } else {
                alice.post("/_matrix/client/v3/createRoom", json!({})).await.fails(403, "M_USER_SUSPENDED");
            }
            root.put(&path, json!({ key: false })).await.ok();
            alice.get(sync).await.ok();
            for admin in [&root, &other] {
                root.put(&of(&admin.user_id), json!({ key: true })).await.fails(403, "M_FORBIDDEN");
            }
            root.get(&of("@nobody:hearth.test")).await.fails(404, "M_NOT_FOUND");
            root.get(&of("@alice:elsewhere.test")).await.fails(400, "M_INVALID_PARAM");
            root.put(&path, json!({})).await.fails(400, "M_MISSING_PARAM");
        }
        let told = root.get("/_matrix/client/v3/capabilities").await.ok();
        assert_eq!(told["capabilities"]["m.account_moderation"], json!({ "suspend": true, "lock": true }));
        let told = alice.get("/_matrix/client/v3/capabilities").await.ok();
        assert!(told["capabilities"]["m.account_moderation"].is_null());
    }
}
