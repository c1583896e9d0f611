//! What a crash or a broken disk leaves.

use super::*;

/// The same folder and database after a process died.
fn restarted(world: World) -> World {
    let media = Media::open(&world.folder.path().join("media"), Config::default()).unwrap();
    World { media, ..world }
}

#[tokio::test]
async fn a_half_received_file_is_gone_after_a_restart() {
    let world = World::new();
    let mut receiving = world.media.blobs.receive().await.unwrap();
    receiving.write(Bytes::from(vec![1; 500_000])).await.unwrap();
    std::mem::forget(receiving);
    let whole = world.received(b"whole but in no row").await.unwrap();
    std::mem::forget(whole);
    assert_eq!(world.files().len(), 2);
    assert!(world.files().iter().all(|file| file.starts_with("media/uploads")), "it never shows as a blob");
    assert!(restarted(world).files().is_empty());
}

#[tokio::test]
async fn a_blob_without_a_row_is_swept_and_one_with_a_row_is_not() {
    let mut world = World::new();
    let kept = world.upload(b"kept", "text/plain").await;
    let orphan = world.received(b"orphan").await.unwrap();
    world.media.blobs.place(orphan).await.unwrap();
    std::fs::create_dir_all(world.folder.path().join("media/thumbnails/aa/bb").join("aabb".repeat(16))).unwrap();
    let thumbnail = format!("media/thumbnails/aa/bb/{}/32x32-crop", "aabb".repeat(16));
    std::fs::write(world.folder.path().join(thumbnail), "x").unwrap();
    std::fs::write(world.folder.path().join("media/blobs/README"), "not ours").unwrap();
    let world = restarted(world);
    assert_eq!(world.media.sweep(&world.store, NOW).await.unwrap(), Swept { blobs: 2, expired: 0 });
    assert_eq!(world.media.sweep(&world.store, NOW).await.unwrap(), Swept::default());
    assert_eq!(world.download(&kept).await.unwrap(), b"kept");
    assert_eq!(world.files().len(), 2, "the kept blob, and what is not ours");
}

#[tokio::test]
async fn a_sweep_beside_uploads_loses_none() {
    let world = World::new();
    let mut rng = StdRng::seed_from_u64(3);
    for round in 0..20_u8 {
        let id = MediaId::random(&mut rng);
        let received = world.received(&[round; 10]).await.unwrap();
        let described = upload(ALICE, "text/plain");
        let uploading = world.media.upload(&world.store, &id, received, &described);
        let (uploaded, swept) = futures_util::future::join(uploading, world.media.sweep(&world.store, NOW)).await;
        uploaded.unwrap();
        swept.unwrap();
        assert_eq!(world.download(&id).await.unwrap(), [round; 10]);
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_says_so_and_acknowledges_nothing() {
    let mut world = World::new();
    let before = world.upload(b"before", "text/plain").await;
    let uploads = world.folder.path().join("media/uploads");
    std::fs::remove_dir_all(&uploads).unwrap();
    std::fs::write(&uploads, "in the way").unwrap();
    let refused = world.received(b"x").await.map(|_| ()).unwrap_err();
    assert!(matches!(&refused, Error::Unwritable(_)), "{refused}");
    assert!(refused.to_string().contains("free some space"), "{refused}");
    assert_eq!(world.download(&before).await.unwrap(), b"before", "reading goes on");

    std::fs::remove_file(&uploads).unwrap();
    std::fs::create_dir(&uploads).unwrap();
    let blobs = world.folder.path().join("media/blobs");
    std::fs::rename(&blobs, world.folder.path().join("aside")).unwrap();
    std::fs::write(&blobs, "in the way").unwrap();
    let id = world.new_id();
    let received = world.received(b"y").await.unwrap();
    let refused = world.media.upload(&world.store, &id, received, &upload(ALICE, "text/plain")).await;
    assert!(matches!(refused, Err(Error::Unwritable(_))), "{refused:?}");
    assert!(metadata(&world.store.snapshot(), &id).unwrap().is_none());
    assert!(std::fs::read_dir(&uploads).unwrap().next().is_none(), "what was received is removed");
}

#[tokio::test]
async fn a_missing_blob_is_an_error_that_names_it() {
    let mut world = World::new();
    let id = world.upload(b"lost", "text/plain").await;
    for file in world.files() {
        std::fs::remove_file(world.folder.path().join(file)).unwrap();
    }
    let error = world.download(&id).await.unwrap_err();
    assert!(matches!(&error, Error::Unreadable(text) if text.contains("is missing")), "{error}");
    world.upload(b"lost", "text/plain").await;
    assert_eq!(world.download(&id).await.unwrap(), b"lost", "uploading the bytes again mends it");
}
