//! Profiles of users of other servers ("Querying for information").

use ruma::UserId;
use serde_json::{Map, Value};
use users::profiles::{AVATAR_URL, DISPLAYNAME, NAME_MAX_BYTES, PROFILE_MAX_BYTES};

use crate::{Ask, Federation, Result, path, query};

impl Federation {
    /// The profile of a user of another server, or one field of it. It is bounded, and its names and avatars are texts.
    ///
    /// # Errors
    /// [`crate::Error`].
    pub async fn profile(&self, user: &UserId, field: Option<&str>) -> Result<Map<String, Value>> {
        let mut pairs = vec![("user_id", user.as_str())];
        pairs.extend(field.map(|field| ("field", field)));
        let path = query(path(&["_matrix", "federation", "v1", "query", "profile"]), &pairs);
        let mut profile: Map<String, Value> =
            self.call(user.server_name(), Ask::get(path).body_max(PROFILE_MAX_BYTES + 1024)).await?;
        profile.retain(|name, value| {
            let wanted = field.is_none_or(|field| field == name) && name.len() <= NAME_MAX_BYTES;
            wanted && (value.is_string() || ![DISPLAYNAME, AVATAR_URL].contains(&name.as_str()))
        });
        Ok(profile)
    }
}
