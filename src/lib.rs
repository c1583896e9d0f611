//! Hearth: a Matrix homeserver.
