//! The client-server API: one file a noun, each with its own `routes`. `docs/adding-an-endpoint.md` shows how.

mod account;
mod account_data;
#[cfg(test)]
mod appservice_tests;
mod capabilities;
mod create_room;
mod devices;
mod directory;
mod filters;
#[cfg(test)]
mod guests_tests;
mod hierarchy;
mod history;
mod key_backup;
mod keys;
mod login;
mod media;
mod membership;
mod moderation;
mod mutual_rooms;
mod openid;
mod presence;
mod profile;
mod push_rules;
mod receipts;
mod register;
mod relations;
mod rooms;
mod send;
#[cfg(test)]
mod suspension_tests;
mod sync;
mod thirdparty;
mod threads;
mod to_device;
mod typing;
mod uiaa;
mod upgrade;
mod user_directory;
mod versions;
mod voip;
mod well_known;
mod with;

pub(crate) use directory::page_of_rooms;
pub(crate) use media::wanted as wanted_thumbnail;
pub(crate) use profile::shown;
pub(crate) use with::{Nothing, With};

use crate::route::Route;

/// What other servers ask at places of clients, and without a signature.
pub(crate) fn for_servers() -> Vec<Route> {
    [openid::for_servers(), well_known::for_servers()].into_iter().flatten().collect()
}

/// All endpoints of the client-server API.
pub(crate) fn routes() -> Vec<Route> {
    let nouns = [
        account::routes(), //
        account_data::routes(),
        capabilities::routes(),
        create_room::routes(),
        devices::routes(),
        directory::routes(),
        filters::routes(),
        hierarchy::routes(),
        history::routes(),
        key_backup::routes(),
        keys::routes(),
        login::routes(),
        media::routes(),
        membership::routes(),
        moderation::routes(),
        mutual_rooms::routes(),
        openid::routes(),
        presence::routes(),
        profile::routes(),
        push_rules::routes(),
        receipts::routes(),
        register::routes(),
        relations::routes(),
        send::routes(),
        sync::routes(),
        thirdparty::routes(),
        threads::routes(),
        to_device::routes(),
        typing::routes(),
        upgrade::routes(),
        user_directory::routes(),
        versions::routes(),
        voip::routes(),
        well_known::routes(),
        for_servers(),
    ];
    nouns.into_iter().flatten().collect()
}
