//! Media of other servers, and what is kept of it.

use super::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn id(server: &str, id: &str) -> RemoteId {
    RemoteId { server: server.try_into().unwrap(), id: MediaId::parse(id).unwrap() }
}

impl World {
    async fn keep(&self, id: &RemoteId, file: &[u8], now_ms: u64) -> Content {
        let received = self.received(file).await.unwrap();
        let kept = self.media.keep_remote(&self.store, id, received, Some("Text/Plain"), Some("a"), now_ms).await;
        kept.unwrap()
    }

    fn kept(&self, id: &RemoteId, now_ms: u64) -> Option<Content> {
        self.media.remote(&self.store, id, now_ms).unwrap()
    }
}

#[tokio::test]
async fn kept_media_is_that_of_its_server() {
    let mut world = World::new();
    let (one, two) = (id("one.test", "a"), id("two.test", "a"));
    let kept = world.keep(&one, b"hello", NOW).await;
    assert_eq!((kept.size, kept.content_type.as_str(), kept.filename.as_deref()), (5, "text/plain", Some("a")));
    assert_eq!(world.kept(&one, NOW), Some(kept.clone()));
    assert_eq!(world.kept(&two, NOW), None);
    assert!(matches!(world.content(&MediaId::parse("a").unwrap()).await, Err(Error::NotFound)));
    let own = world.upload(b"hello", "text/plain").await;
    assert_eq!(world.files().len(), 1, "equal bytes are one file");
    assert_eq!(world.media.forget_remote(&world.store, &one).await.unwrap(), Some(kept));
    assert_eq!(world.download(&own).await.unwrap(), b"hello");
    assert_eq!(world.media.forget_remote(&world.store, &one).await.unwrap(), None);
}

/// T31: other servers' files fill no disk.
#[tokio::test]
async fn t31_what_was_not_asked_for_longest_goes_first() {
    let world = World::with(Config { max_remote_bytes: 250, ..Config::default() });
    let ids = ["a", "b", "c", "d"].map(|name| id("one.test", name));
    for (day, id) in (0..).zip(&ids[..2]) {
        world.keep(id, &[day as u8; 100], NOW + day * DAY_MS).await;
    }
    assert!(world.kept(&ids[0], NOW + 2 * DAY_MS).is_some());
    world.keep(&ids[2], &[2; 100], NOW + 2 * DAY_MS).await;
    let kept = |number: usize| world.kept(&ids[number], NOW + 2 * DAY_MS).is_some();
    assert_eq!([kept(0), kept(1), kept(2)], [true, false, true], "the second was not asked for since");
    assert_eq!(world.files().len(), 2);
    world.keep(&ids[2], &[3; 60], NOW + 3 * DAY_MS).await;
    assert_eq!((kept(0), world.files().len()), (true, 2), "a file that came again counts once");
    world.keep(&ids[3], &[4; 300], NOW + 4 * DAY_MS).await;
    assert_eq!([kept(0), kept(1), kept(2), kept(3)], [false, false, false, true]);
    assert_eq!(world.files().len(), 1);
}
