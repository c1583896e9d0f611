//! Uploading, downloading, deleting.

use super::*;

#[tokio::test]
async fn a_file_comes_back_as_it_was() {
    let mut world = World::new();
    let file: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
    let id = world.upload(&file, "Video/MP4").await;
    assert_eq!(world.download(&id).await.unwrap(), file);
    let content = world.content(&id).await.unwrap();
    assert_eq!((content.size, content.content_type.as_str(), content.filename.as_deref()), (700_000, "video/mp4", Some("a.bin")));
    let part = world.media.read(&content, Some(300_000..450_001)).await.unwrap();
    assert_eq!(bytes(part).await, file[300_000..450_001]);
    let hex: String = content.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(world.files(), [PathBuf::from(format!("media/blobs/{}/{}/{hex}", &hex[..2], &hex[2..4]))]);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let mut world = World::new();
    let id = world.upload(b"", "text/plain").await;
    assert_eq!(world.download(&id).await.unwrap(), b"");
}

#[tokio::test]
async fn equal_bytes_are_stored_once_and_removed_with_their_last_media() {
    let mut world = World::new();
    let first = world.upload(b"same", "text/plain").await;
    let second = world.try_upload(BOB, b"same", "text/html").await.unwrap();
    assert_eq!(world.files().len(), 1);
    assert!(world.media.delete(&world.store, &first).await.unwrap());
    assert!(matches!(world.content(&first).await, Err(Error::NotFound)));
    assert_eq!(world.download(&second).await.unwrap(), b"same");
    assert!(world.media.delete(&world.store, &second).await.unwrap());
    assert!(world.files().is_empty());
    assert!(!world.media.delete(&world.store, &second).await.unwrap());
    assert_eq!(usage(&world.store.snapshot(), BOB).unwrap(), Usage::default());
}

#[tokio::test]
async fn a_file_beyond_the_limit_is_refused_and_leaves_nothing() {
    let world = World::with(Config { max_upload_bytes: 50_000, ..Config::default() });
    assert!(matches!(world.received(&[0; 50_001]).await, Err(Error::TooLarge { limit: 50_000 })));
    let endless = stream::repeat_with(|| Ok::<_, Error>(Bytes::from_static(&[7; 4096])));
    let refused: Result<Received> = world.media.receive(None, endless).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "without saying its size");
    assert!(world.received(&[0; 50_000]).await.is_ok());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.files().is_empty(), "{:?}", world.files());
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let world = World::new();
    let broken = stream::iter([Ok(Bytes::from(vec![1; 300_000])), Err(Error::BrokenOff)]);
    let refused: Result<Received> = world.media.receive(None, broken).await;
    assert!(matches!(refused, Err(Error::BrokenOff)));
    let short = stream::iter([Ok::<_, Error>(Bytes::from_static(b"abc"))]);
    let refused: Result<Received> = world.media.receive(Some(4), short).await;
    assert!(matches!(refused, Err(Error::BrokenOff)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.files().is_empty(), "{:?}", world.files());
}

#[tokio::test]
async fn a_quota_holds_and_what_it_refuses_is_not_kept() {
    let mut world = World::with(Config { max_user_bytes: Some(10), ..Config::default() });
    let kept = world.upload(b"sixsix", "text/plain").await;
    assert!(matches!(world.try_upload(ALICE, b"seven77", "text/plain").await, Err(Error::OverQuota { limit: 10 })));
    assert!(matches!(world.media.may_upload(&world.store.snapshot(), ALICE, Some(5)), Err(Error::OverQuota { .. })));
    assert_eq!(world.files().len(), 1);
    assert!(world.try_upload(BOB, b"seven77", "text/plain").await.is_ok(), "another user has their own");
    assert!(matches!(world.try_upload(ALICE, b"seven77", "text/plain").await, Err(Error::OverQuota { .. })));
    assert_eq!(world.files().len(), 2, "bytes that another has stay");
    world.media.delete(&world.store, &kept).await.unwrap();
    assert!(world.try_upload(ALICE, b"seven77", "text/plain").await.is_ok());
    assert_eq!(usage(&world.store.snapshot(), ALICE).unwrap(), Usage { files: 1, bytes: 7 });
}

#[tokio::test]
async fn the_uploads_of_a_user_are_listed_in_pages() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for n in 0..5_u8 {
        ids.push(world.upload(&[n], "text/plain").await);
        world.try_upload(BOB, &[n], "text/plain").await.unwrap();
    }
    ids.sort();
    let snapshot = world.store.snapshot();
    let first = of_user(&snapshot, ALICE, None, 3).unwrap();
    let rest = of_user(&snapshot, ALICE, first.last(), 3).unwrap();
    assert_eq!([first, rest].concat(), ids);
}

#[tokio::test]
async fn t38_quarantined_media_is_not_found() {
    let mut world = World::new();
    let id = world.upload(b"bad", "text/plain").await;
    assert!(quarantine(&world.store, &id, true).unwrap().durable().await.unwrap());
    assert!(matches!(world.content(&id).await, Err(Error::NotFound)));
    assert!(metadata(&world.store.snapshot(), &id).unwrap().unwrap().quarantined, "but known to administrators");
    assert!(quarantine(&world.store, &id, false).unwrap().durable().await.unwrap());
    assert!(world.content(&id).await.is_ok());
    assert!(!quarantine(&world.store, &MediaId::parse("unknown").unwrap(), true).unwrap().durable().await.unwrap());
}

#[tokio::test]
async fn a_download_is_noted_once_a_day() {
    let mut world = World::new();
    let id = world.upload(b"old", "text/plain").await;
    let before = world.store.snapshot().seq();
    world.content(&id).await.unwrap();
    let tomorrow = NOW + 24 * 60 * 60 * 1000;
    for _ in 0..3 {
        world.media.content(&world.store, &id, NO_WAIT, tomorrow).await.unwrap();
        store_settled(&world.store).await;
    }
    assert_eq!(world.store.snapshot().seq().0, before.0 + 1);
    assert_eq!(u64::from(metadata(&world.store.snapshot(), &id).unwrap().unwrap().accessed_day), tomorrow / 86_400_000);
}

/// Waits until soft writes are visible: an empty write is acknowledged after them.
async fn store_settled(store: &Store) {
    store.transact(&[], |_| Ok::<_, store::Error>(())).unwrap().durable().await.unwrap();
}

#[tokio::test]
async fn only_media_from_before_the_freeze_is_unauthenticated() {
    let mut world = World::new();
    let id = world.upload(b"new", "text/plain").await;
    let content = world.content(&id).await.unwrap();
    assert!(!world.media.is_unauthenticated(&content));
    let older = World::with(Config { unauthenticated_before_ms: NOW + 1, ..Config::default() });
    assert!(older.media.is_unauthenticated(&content));
}

#[test]
fn media_ids_cannot_name_paths() {
    for bad in ["", "..", ".", "../../etc/passwd", "a/b", "a\\b", "%2e%2e", "a.b", "a\0", "ä", "a b", "a\n", &"a".repeat(256)] {
        assert!(MediaId::parse(bad).is_none(), "{bad:?}");
    }
    for good in ["a", "Az09_-", &"a".repeat(255)] {
        assert_eq!(MediaId::parse(good).unwrap().as_str(), good);
    }
    let mut rng = StdRng::seed_from_u64(1);
    let (one, other) = (MediaId::random(&mut rng), MediaId::random(&mut rng));
    assert!(one != other && MediaId::parse(one.as_str()).is_some() && one.as_str().len() == 24);
}

#[tokio::test]
async fn uploads_and_deletions_of_equal_bytes_lose_nothing() {
    let mut world = World::new();
    let ids: Vec<MediaId> = (0..40).map(|_| world.new_id()).collect();
    let world = std::sync::Arc::new(world);
    let tasks = ids.iter().enumerate().map(|(n, id)| {
        let (world, id) = (std::sync::Arc::clone(&world), id.clone());
        tokio::spawn(async move {
            let received = world.received(b"contended").await.unwrap();
            world.media.upload(&world.store, &id, received, &upload(ALICE, "text/plain")).await.unwrap();
            if n % 2 == 0 {
                world.media.delete(&world.store, &id).await.unwrap();
            } else {
                assert_eq!(world.download(&id).await.unwrap(), b"contended");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(world.download(id).await.is_ok(), n % 2 == 1);
    }
}
