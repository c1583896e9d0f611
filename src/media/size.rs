//! Which size a thumbnail has ("Thumbnails").
//!
//! A request names the smallest size that the client would like. It is raised to one of a few sizes, so that an image has a bounded
//! number of thumbnails, whoever asks. An image that is no larger than that is served as it is: nothing is ever enlarged.

use std::fmt;

use serde::Deserialize;

use crate::{Error, Result};

/// The boxes that "scale" fits an image into: the specification's, and two for larger screens.
const BOXES: [(u32, u32); 5] = [(320, 240), (640, 480), (800, 600), (1280, 960), (1600, 1200)];
/// The longer sides of "crop": the specification's, and some for larger screens.
const SIDES: [u32; 6] = [32, 96, 320, 640, 1280, 1600];
/// More than any image has.
const BEYOND: u32 = u32::MAX;

/// How an image is made smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Cut to the aspect of the size.
    Crop,
    /// Whole, with its own aspect, within the size.
    #[default]
    Scale,
}

/// A thumbnail that is wanted, in one of the sizes that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    width: u32,
    height: u32,
    method: Method,
    pub(crate) animated: bool,
}

impl Wanted {
    /// The thumbnail to make for who asks for at least `width` by `height` pixels. `animated`: whether it may move.
    ///
    /// # Errors
    /// [`Error::NoSize`] where either is 0.
    pub fn new(width: u32, height: u32, method: Method, animated: bool) -> Result<Self> {
        if width == 0 || height == 0 {
            return Err(Error::NoSize);
        }
        let larger = match method {
            Method::Scale => BOXES.into_iter().find(|(w, h)| width <= *w && height <= *h),
            Method::Crop => {
                let long = width.max(height);
                let raised = |side: u32| SIDES.into_iter().find(|l| long <= *l).map(|l| part(side, l, long).max(1));
                raised(width).zip(raised(height))
            }
        };
        let (width, height) = larger.unwrap_or((BEYOND, BEYOND));
        Ok(Self { width, height, method, animated })
    }

    /// What to make of an image of this size; `None` where it is small enough already.
    pub(crate) fn plan(&self, (width, height): (u32, u32)) -> Option<Plan> {
        if (width <= self.width && height <= self.height) || width == 0 || height == 0 {
            return None;
        }
        let (cut, size) = match self.method {
            Method::Scale => ((width, height), fitted((width, height), (self.width, self.height))),
            Method::Crop => {
                // The largest part with the wanted aspect, and that part at the wanted size, or as it is where smaller.
                let cut = fitted((self.width, self.height), (width, height));
                (cut, (cut.0.min(self.width), cut.1.min(self.height)))
            }
        };
        Some(Plan { cut, size })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let method = match self.method {
            Method::Crop => "crop",
            Method::Scale => "scale",
        };
        let animated = if self.animated { "-animated" } else { "" };
        write!(f, "{}x{}-{method}{animated}", self.width, self.height)
    }
}

/// What to do with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The size of its middle that is used.
    pub(crate) cut: (u32, u32),
    /// The size that becomes.
    pub(crate) size: (u32, u32),
}

/// The largest size of `of`'s aspect that fits into `bounds`.
fn fitted(of: (u32, u32), bounds: (u32, u32)) -> (u32, u32) {
    if u64::from(bounds.0) * u64::from(of.1) <= u64::from(bounds.1) * u64::from(of.0) {
        (bounds.0, part(of.1, bounds.0, of.0).clamp(1, bounds.1))
    } else {
        (part(of.0, bounds.1, of.1).clamp(1, bounds.0), bounds.1)
    }
}

/// `of` times `numerator` over `denominator`, rounded.
fn part(of: u32, numerator: u32, denominator: u32) -> u32 {
    let product = u64::from(of) * u64::from(numerator) + u64::from(denominator) / 2;
    u32::try_from(product / u64::from(denominator.max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made(width: u32, height: u32, method: Method, image: (u32, u32)) -> Option<(u32, u32)> {
        Wanted::new(width, height, method, false).unwrap().plan(image).map(|plan| plan.size)
    }

    #[test]
    fn sizes_are_raised_to_those_that_are_made() {
        use Method::{Crop, Scale};
        let cases = [
            ((32, 32, Crop), "32x32-crop"),
            ((33, 33, Crop), "96x96-crop"),
            ((96, 48, Crop), "96x48-crop"),
            ((50, 25, Crop), "96x48-crop"),
            ((1, 1, Scale), "320x240-scale"),
            ((240, 320, Scale), "640x480-scale"),
            ((800, 600, Scale), "800x600-scale"),
        ];
        for ((width, height, method), name) in cases {
            assert_eq!(Wanted::new(width, height, method, false).unwrap().to_string(), name);
        }
        assert!(matches!(Wanted::new(0, 32, Crop, false), Err(Error::NoSize)));
    }

    #[test]
    fn scaling_keeps_the_aspect_and_cropping_the_wanted_one() {
        use Method::{Crop, Scale};
        let cases = [
            ((320, 240, Scale), (1000, 1000), Some((240, 240))),
            ((320, 240, Scale), (3200, 100), Some((320, 10))),
            ((320, 240, Scale), (100_000, 1), Some((320, 1))),
            ((320, 240, Scale), (320, 240), None),
            ((9000, 9000, Scale), (4000, 4000), None),
            ((96, 96, Crop), (1000, 500), Some((96, 96))),
            ((96, 48, Crop), (1000, 1000), Some((96, 48))),
            ((96, 96, Crop), (50, 1000), Some((50, 50))),
            ((96, 96, Crop), (50, 96), None),
            ((96, 1, Crop), (1000, 1000), Some((96, 1))),
        ];
        for ((width, height, method), image, size) in cases {
            assert_eq!(made(width, height, method, image), size, "{width}x{height} {method:?} of {image:?}");
        }
    }

    #[test]
    fn no_plan_enlarges_or_cuts_outside() {
        for image in [(1, 1), (31, 33), (97, 1), (1, 5000), (640, 481), (1601, 1199), (7, 70_000)] {
            for (width, height) in [(1, 1), (32, 32), (96, 1), (3, 320), (640, 480), (1600, 7), (5000, 5000)] {
                for method in [Method::Crop, Method::Scale] {
                    let Some(plan) = Wanted::new(width, height, method, true).unwrap().plan(image) else { continue };
                    assert!(plan.cut.0 <= image.0 && plan.cut.1 <= image.1, "{plan:?} of {image:?}");
                    assert!(plan.size.0 <= plan.cut.0 && plan.size.1 <= plan.cut.1, "{plan:?} of {image:?}");
                    assert!(plan.size.0 > 0 && plan.size.1 > 0);
                }
            }
        }
    }
}
