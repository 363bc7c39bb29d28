//! Slots that members take, give back and take again, while old requests end and picks scan.

use loom::thread;

use super::*;
use crate::interleavings::explore;

#[test]
fn a_slot_is_given_back_once_and_not_while_it_is_in_use() {
    let orders = explore(|| {
        let mut slots = Slots::default();
        let old = member(Some(slots.take()));
        assert!(old.begin());
        let guard = old.member_ref();
        let request = thread::spawn(move || {
            guard.end();
            drop(guard);
        });
        let snapshot = old.clone();
        let reader = thread::spawn(move || {
            let begun = snapshot.begin();
            if begun {
                snapshot.end();
            }
        });
        old.remove();
        drop(old);
        let new = member(Some(slots.take()));
        assert!(new.begin(), "it is as good as new");
        let newer = member(Some(slots.take()));
        assert_ne!(new.word.slot(), newer.word.slot());
        request.join().unwrap();
        reader.join().unwrap();
        // A request that ends in the old life must not count in the new one.
        assert_eq!((new.flags(), new.counted()), (0, 1));
        assert_eq!((newer.flags(), newer.counted()), (0, 0));
        drop((new, newer));
        let (all, free) = slots.count();
        assert_eq!(all, free, "all slots are back, once");
    });
    println!("{orders} orders");
}

#[test]
fn a_scan_begins_no_request_at_a_member_that_has_left() {
    let orders = explore(|| {
        let mut slots = Slots::default();
        let old = member(Some(slots.take()));
        let endpoints = vec![old.endpoint().clone()];
        let members = Members::new(endpoints, vec![old.clone()], &slots);
        let reader = thread::spawn(move || {
            let seen = members.min();
            seen < FLAGGED && members.begin_if(0, seen)
        });
        old.remove();
        let new = member(Some(slots.take()));
        assert!(new.begin());
        let late = old.begin();
        let begun = reader.join().unwrap();
        assert!(!late, "it has left");
        assert_eq!((old.flags(), old.counted()), (REMOVED, u32::from(begun)));
        assert_eq!((new.flags(), new.counted()), (0, 1));
        drop((old, new));
        assert_eq!(slots.count().0, slots.count().1);
    });
    println!("{orders} orders");
}
