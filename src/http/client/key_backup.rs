//! Encrypted copies of room keys ("Server-side key backups").

use ruma::{
    OwnedRoomId,
    api::client::backup::{
        add_backup_keys::v3 as add_keys, add_backup_keys_for_room::v3 as add_room,
        add_backup_keys_for_session::v3 as add_session, create_backup_version::v3 as create_version,
        delete_backup_keys::v3 as delete_keys, delete_backup_keys_for_room::v3 as delete_room,
        delete_backup_keys_for_session::v3 as delete_session, delete_backup_version::v3 as delete_version,
        get_backup_info::v3 as get_version, get_backup_keys::v3 as get_keys, get_backup_keys_for_room::v3 as get_room,
        get_backup_keys_for_session::v3 as get_session, get_latest_backup_info::v3 as get_current,
        update_backup_version::v3 as update_version,
    },
    serde::Raw,
};
use serde::de::DeserializeOwned;
use users::key_backup::{self, BackedUpKey, BackedUpRoom, BackedUpRooms, Backup, BackupData, BackupState, Scope};

use super::with::With;
use crate::{
    Call, Class, Error, Json, Result, Route,
    auth::{Session, User},
    endpoint,
};

/// The body of an upload of keys: clients send some hundreds at a time.
const BODY_MAX: usize = 8 << 20;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        endpoint(User, Class::Keys, create),
        endpoint(User, Class::Keys, current),
        endpoint(User, Class::Keys, version),
        endpoint(User, Class::Keys, update),
        endpoint(User, Class::Keys, delete),
        endpoint(User, Class::Keys, put_all).body_max(BODY_MAX),
        endpoint(User, Class::Keys, put_room).body_max(BODY_MAX),
        endpoint(User, Class::Keys, put_session),
        endpoint(User, Class::Keys, all),
        endpoint(User, Class::Keys, room),
        endpoint(User, Class::Keys, session),
        endpoint(User, Class::Keys, delete_all),
        endpoint(User, Class::Keys, delete_in_room),
        endpoint(User, Class::Keys, delete_one),
    ]
}

async fn create(call: Call<Session>, request: With<create_version::Request, BackupData>) -> Result<create_version::Response> {
    let version = key_backup::create(&call.server.store, call.session.user, &request.body)?.durable().await?;
    Ok(create_version::Response::new(version))
}

async fn current(call: Call<Session>, _: get_current::Request) -> Result<Json<Backup>> {
    let backup = key_backup::current(&call.snapshot(), call.session.user)?;
    backup.map(Json).ok_or_else(|| Error::not_found("There is no key backup"))
}

async fn version(call: Call<Session>, request: get_version::Request) -> Result<Json<Backup>> {
    Ok(Json(key_backup::version(&call.snapshot(), call.session.user, &request.version)?))
}

async fn update(call: Call<Session>, request: With<update_version::Request, BackupData>) -> Result<update_version::Response> {
    let (store, version) = (&call.server.store, request.arg(0));
    key_backup::update(store, call.session.user, version, &request.body)?.durable().await?;
    Ok(update_version::Response::new())
}

async fn delete(call: Call<Session>, request: delete_version::Request) -> Result<delete_version::Response> {
    let (store, user) = (call.server.store.clone(), call.session.user);
    let work = move || key_backup::delete(&store, user, &request.version);
    call.server.blocking(work).await?.durable().await?;
    Ok(delete_version::Response::new())
}

/// JSON that ruma left as it came.
fn read<T, U: DeserializeOwned>(raw: &Raw<T>) -> Result<U> {
    crate::json(raw.json().get().as_bytes())
}

async fn put(call: Call<Session>, version: String, keys: BackedUpRooms) -> Result<Json<BackupState>> {
    let (store, user) = (call.server.store.clone(), call.session.user);
    let work = move || key_backup::add_keys(&store, user, &version, &keys);
    Ok(Json(call.server.blocking(work).await?.durable().await?))
}

fn in_room(room: OwnedRoomId, keys: BackedUpRoom) -> BackedUpRooms {
    BackedUpRooms { rooms: [(room, keys)].into() }
}

fn read_room<T>(sessions: impl IntoIterator<Item = (String, Raw<T>)>) -> Result<BackedUpRoom> {
    let keys = sessions.into_iter().map(|(id, key)| Ok((id, read(&key)?)));
    Ok(BackedUpRoom { sessions: keys.collect::<Result<_>>()? })
}

async fn put_all(call: Call<Session>, request: add_keys::Request) -> Result<Json<BackupState>> {
    let rooms = request.rooms.into_iter().map(|(room, keys)| Ok((room, read_room(keys.sessions)?)));
    let keys = BackedUpRooms { rooms: rooms.collect::<Result<_>>()? };
    put(call, request.version, keys).await
}

async fn put_room(call: Call<Session>, request: add_room::Request) -> Result<Json<BackupState>> {
    let keys = read_room(request.sessions)?;
    put(call, request.version, in_room(request.room_id, keys)).await
}

async fn put_session(call: Call<Session>, request: add_session::Request) -> Result<Json<BackupState>> {
    let keys = BackedUpRoom { sessions: [(request.session_id, read(&request.session_data)?)].into() };
    put(call, request.version, in_room(request.room_id, keys)).await
}

async fn all(call: Call<Session>, request: get_keys::Request) -> Result<Json<BackedUpRooms>> {
    let (db, user) = (call.snapshot(), call.session.user);
    let work = move || key_backup::stored_keys(&db, user, &request.version, Scope::All);
    Ok(Json(call.server.blocking(work).await?))
}

async fn room(call: Call<Session>, request: get_room::Request) -> Result<Json<BackedUpRoom>> {
    let (db, user) = (call.snapshot(), call.session.user);
    let work = move || -> Result<_> {
        let mut keys = key_backup::stored_keys(&db, user, &request.version, Scope::Room(&request.room_id))?;
        Ok(keys.rooms.remove(&request.room_id).unwrap_or_default())
    };
    Ok(Json(call.server.blocking(work).await?))
}

async fn session(call: Call<Session>, request: get_session::Request) -> Result<Json<BackedUpKey>> {
    let scope = Scope::Session(&request.room_id, &request.session_id);
    let keys = key_backup::stored_keys(&call.snapshot(), call.session.user, &request.version, scope)?;
    let key = keys.rooms.into_values().flat_map(|room| room.sessions.into_values()).next();
    key.map(Json).ok_or_else(|| Error::not_found("The backup has no such key"))
}

async fn delete_all(call: Call<Session>, request: delete_keys::Request) -> Result<Json<BackupState>> {
    let (store, user) = (call.server.store.clone(), call.session.user);
    let work = move || key_backup::delete_keys(&store, user, &request.version, Scope::All);
    Ok(Json(call.server.blocking(work).await?.durable().await?))
}

async fn delete_in_room(call: Call<Session>, request: delete_room::Request) -> Result<Json<BackupState>> {
    let (store, user) = (call.server.store.clone(), call.session.user);
    let work = move || key_backup::delete_keys(&store, user, &request.version, Scope::Room(&request.room_id));
    Ok(Json(call.server.blocking(work).await?.durable().await?))
}

async fn delete_one(call: Call<Session>, request: delete_session::Request) -> Result<Json<BackupState>> {
    let scope = Scope::Session(&request.room_id, &request.session_id);
    let pending = key_backup::delete_keys(&call.server.store, call.session.user, &request.version, scope)?;
    Ok(Json(pending.durable().await?))
}
