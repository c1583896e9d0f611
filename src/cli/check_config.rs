//! `hearth check-config`: what `hearth serve` would say of its configuration.

use super::{Place, Result, Serve, say};
use crate::{config::Loaded, telemetry};

pub(super) fn run(place: &Place, serve: &Serve) -> Result<()> {
    let Loaded { config, defaults, ignored } = place.load(serve.flags())?;
    telemetry::check(&config.log)?;
    for name in ignored {
        say(&format!("Ignored: {name} is no setting of Hearth"))?;
    }
    if !defaults.is_empty() {
        say(&format!("Left to their defaults: {}", defaults.join(", ")))?;
    }
    say("The configuration is valid.")
}
