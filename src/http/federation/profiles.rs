//! Profiles of this server's users, as other servers may see them ("Querying for information").

use protocol::json::Object;
use ruma::{UserId, api::federation::query::get_profile_information::v1 as query_profile};
use serde::Deserialize;
use users::profiles;

use super::{Origin, federated};
use crate::{
    Call, Class, Error, Json, Result, Route,
    client::{Nothing, With, shown},
};

pub(super) fn routes() -> Vec<Route> {
    vec![federated(Class::Federation, profile)]
}

async fn profile(call: Call<Origin>, request: With<query_profile::Request, Nothing>) -> Result<Json<Object>> {
    #[derive(Deserialize)]
    struct Query {
        user_id: String,
        field: Option<String>,
    }
    let query: Query = serde_html_form::from_str(&request.query).map_err(|error| Error::missing_param(error.to_string()))?;
    let user = UserId::parse(&query.user_id).map_err(|_| Error::invalid_param("user_id is none"))?;
    let db = call.snapshot();
    let user = shown(&db, &user)?;
    Ok(Json(match query.field {
        None => profiles::profile(&db, user)?,
        Some(field) => profiles::field(&db, user, &field)?.map(|value| (field, value)).into_iter().collect(),
    }))
}
