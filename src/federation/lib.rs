//! Talking to other homeservers.
