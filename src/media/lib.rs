//! Blobs, their metadata and thumbnails
