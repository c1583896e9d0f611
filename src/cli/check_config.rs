//! `hearth check-config`: what `hearth serve` would say of its configuration.

use ruma::server_name;

use super::{Place, Result, Serve, say};
use crate::{appservices, config::Loaded, telemetry};

pub(super) fn run(place: &Place, serve: &Serve) -> Result<()> {
    let Loaded { config, defaults, ignored } = place.load(serve.flags())?;
    telemetry::check(&config.log)?;
    // The name of the data folder, where there is one, changes nothing of what is valid.
    let name = config.server_name.unwrap_or_else(|| server_name!("localhost").to_owned());
    appservices::load(&config.appservices, &name)?;
    for name in ignored {
        say(&format!("Ignored: {name} is no setting of Hearth"))?;
    }
    if !defaults.is_empty() {
        say(&format!("Left to their defaults: {}", defaults.join(", ")))?;
    }
    say("The configuration is valid.")
}
