//! Read-only answers composed from users and rooms
