//! Media ids created before their upload ("POST /_matrix/media/v1/create").

use std::sync::Arc;

use super::*;

async fn created(world: &mut World, owner: UserNo) -> MediaId {
    let id = world.new_id();
    world.media.create(&world.store, owner, &id, NOW).unwrap().durable().await.unwrap();
    id
}

async fn complete(world: &World, id: &MediaId, upload: &Upload) -> Result<()> {
    world.media.complete(&world.store, id, world.received(b"late").await?, upload).await
}

#[tokio::test]
async fn an_id_is_uploaded_to_once_by_who_created_it() {
    let mut world = World::new();
    let id = created(&mut world, ALICE).await;
    assert!(matches!(world.content(&id).await, Err(Error::NotYetUploaded)));
    assert!(matches!(complete(&world, &id, &upload(BOB, "text/plain")).await, Err(Error::NotOwner)));
    complete(&world, &id, &upload(ALICE, "text/plain")).await.unwrap();
    assert_eq!(world.download(&id).await.unwrap(), b"late");
    assert!(matches!(complete(&world, &id, &upload(ALICE, "text/plain")).await, Err(Error::AlreadyUploaded)));
    let unknown = world.new_id();
    assert!(matches!(complete(&world, &unknown, &upload(ALICE, "text/plain")).await, Err(Error::NotFound)));
    assert!(matches!(world.media.may_complete(&world.store.snapshot(), BOB, &id, NOW), Err(Error::NotOwner)));
    assert_eq!(world.files().len(), 1);
}

#[tokio::test]
async fn an_id_expires_unused() {
    let mut world = World::with(Config { pending_expiry_ms: 1000, ..Config::default() });
    let id = world.new_id();
    let expires = world.media.create(&world.store, ALICE, &id, NOW).unwrap().durable().await.unwrap();
    assert_eq!(expires, NOW + 1000);
    let late = Upload { now_ms: expires, ..upload(ALICE, "text/plain") };
    assert!(matches!(complete(&world, &id, &late).await, Err(Error::NotFound)));
    assert!(matches!(world.media.content(&world.store, &id, NO_WAIT, expires).await, Err(Error::NotFound)));
    assert_eq!(world.media.sweep(&world.store, expires).await.unwrap(), Swept { blobs: 0, expired: 1 });
    assert!(metadata(&world.store.snapshot(), &id).unwrap().is_none());
}

#[tokio::test]
async fn a_user_has_few_ids_pending() {
    let mut world = World::with(Config { max_pending_uploads: 2, pending_expiry_ms: 1000, ..Config::default() });
    let first = created(&mut world, ALICE).await;
    created(&mut world, ALICE).await;
    let id = world.new_id();
    let refused = world.media.create(&world.store, ALICE, &id, NOW + 400);
    assert!(matches!(refused, Err(Error::TooManyPending { retry_after_ms: 600 })));
    created(&mut world, BOB).await;
    complete(&world, &first, &upload(ALICE, "text/plain")).await.unwrap();
    created(&mut world, ALICE).await;
    assert!(world.media.create(&world.store, ALICE, &id, NOW).is_err());
    assert!(world.media.create(&world.store, ALICE, &id, NOW + 1000).is_ok(), "expired ids do not count");
}

#[tokio::test]
async fn downloads_wait_for_the_upload_and_do_not_block_it() {
    let mut world = World::new();
    let id = created(&mut world, ALICE).await;
    let world = Arc::new(world);
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (world, id) = (Arc::clone(&world), id.clone());
            tokio::spawn(async move { world.media.content(&world.store, &id, Duration::from_secs(30), NOW).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    complete(&world, &id, &upload(ALICE, "text/plain")).await.unwrap();
    for download in waiting {
        let content = tokio::time::timeout(Duration::from_secs(5), download).await.expect("woken").unwrap().unwrap();
        assert_eq!(content.size, 4);
    }
}

#[tokio::test]
async fn a_download_waits_no_longer_than_it_says_or_may() {
    let mut world = World::with(Config { max_wait_ms: 30, ..Config::default() });
    let id = created(&mut world, ALICE).await;
    let waited = world.media.content(&world.store, &id, Duration::from_secs(3600), NOW);
    let waited = tokio::time::timeout(Duration::from_secs(5), waited).await.expect("bounded");
    assert!(matches!(waited, Err(Error::NotYetUploaded)));
}
