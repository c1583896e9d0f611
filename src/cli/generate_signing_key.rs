//! `hearth generate-signing-key`: for who lost the old one. `hearth serve` makes the first one itself.

use rand::rngs::StdRng;

use super::{Place, Result, say};
use crate::folder::{Layout, generate_signing_key};

pub(super) fn run(place: &Place) -> Result<()> {
    let config = place.load(Vec::new())?.config;
    let layout = Layout(&config.data);
    let key = generate_signing_key(&layout, &mut rand::make_rng::<StdRng>())?;
    say(&format!("{} holds the new key {}.", layout.signing_key().display(), key.id()))
}
