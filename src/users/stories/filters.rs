use serde_json::{Value, json};

use super::*;
use crate::{Error, filters};

fn create(store: &Store, user: UserNo, filter: Value) -> Result<String> {
    Ok(filters::create(store, user, filter)?.wait()?)
}

#[test]
fn the_same_filter_has_the_same_id() {
    let store = store();
    let ((alice, _), (bob, _)) = (register(&store, "alice"), register(&store, "bob"));
    let filter = json!({ "room": { "timeline": { "limit": 5 }, "org.example.new": true } });
    let id = create(&store, alice, filter.clone()).unwrap();
    assert_eq!(create(&store, alice, filter.clone()).unwrap(), id);
    assert_ne!(create(&store, alice, json!({})).unwrap(), id);
    assert_eq!(filters::filter(&store.snapshot(), alice, &id).unwrap().unwrap(), filter, "with what we do not know");
    let definition = filters::definition(&store.snapshot(), alice, &id).unwrap().unwrap();
    assert_eq!(definition.room.timeline.limit, Some(5_u32.into()));
    assert!(filters::filter(&store.snapshot(), bob, &id).unwrap().is_none());
}

#[test]
fn hostile_filters_and_ids_are_refused() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    for filter in [json!([]), json!({ "room": 5 }), json!({ "room": { "timeline": { "limit": -1 } } })] {
        assert!(matches!(create(&store, alice, filter.clone()), Err(Error::BadJson(_))), "{filter}");
    }
    assert!(matches!(create(&store, alice, json!({ "x": "x".repeat(filters::FILTER_MAX_BYTES) })), Err(Error::TooLarge { .. })));
    for id in ["", "0", "-1", "1", "99999999999999", "{}"] {
        assert!(filters::filter(&store.snapshot(), alice, id).unwrap().is_none(), "{id}");
    }
}

#[test]
fn beyond_the_limit_the_oldest_filter_goes() {
    let store = store();
    let (alice, _) = register(&store, "alice");
    let ids: Vec<String> = (0..=filters::FILTERS_MAX).map(|n| create(&store, alice, json!({ "x": n })).unwrap()).collect();
    assert!(filters::filter(&store.snapshot(), alice, &ids[0]).unwrap().is_none());
    assert!(filters::filter(&store.snapshot(), alice, &ids[1]).unwrap().is_some());
    assert_eq!(store.dump(&filters::TABLES).unwrap().lines().count(), 2 + 2 * filters::FILTERS_MAX);
}
