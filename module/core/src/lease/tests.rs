//! Histories of leases: who fills, who waits, who is told what, and that none of it takes long.

use super::*;
use crate::epoch::Epoch;
use crate::work;

fn token(n: u64) -> Token {
    Token {
        incarnation: 1,
        epoch: Epoch(n),
    }
}

fn waiter(handle: u32, until_ms: u64) -> Waiter<u32> {
    Waiter {
        handle,
        client: 100 + u64::from(handle),
        lease_ms: 50,
        until_ms,
    }
}

/// All that is to be done by now.
fn due(leases: &mut Leases<u32>, now_ms: u64, fresh: impl FnMut() -> Token) -> Vec<Wake<u32>> {
    let mut fresh = fresh;
    let mut wakes = Vec::new();
    while leases.is_behind(now_ms) {
        wakes.extend(leases.advance(now_ms, 7, &mut fresh));
        // Leases without waiting clients end one by one as well.
    }
    wakes
}

fn held() -> Leases<u32> {
    let mut leases = Leases::default();
    let asked = leases.ask(0, b"k", 1, token(1), 1_000, 50);
    assert_eq!(asked, Asked::Granted(token(1)));
    leases
}

#[test]
fn one_fills_and_the_others_look_when_it_has() {
    let mut leases = held();
    assert_eq!(leases.ask(0, b"k", 2, token(2), 1_000, 50), Asked::Held);
    assert_eq!(
        leases.ask(1, b"k", 2, token(2), 1_000, 50),
        Asked::Granted(token(2)),
        "another database"
    );
    assert!(leases.park(0, b"k", waiter(7, 2_000)) && leases.park(0, b"k", waiter(8, 2_000)));
    leases.filled(0, b"k", 100);
    assert_eq!((leases.len(), leases.parked()), (1, 2), "not told yet");
    assert_eq!(
        leases.advance(1_000, 64, || token(3)),
        [(7, Answer::Look), (8, Answer::Look)]
    );
    assert_eq!((leases.len(), leases.parked()), (1, 0));
    assert!(
        !leases.park(0, b"k", waiter(9, 2_000)),
        "no client to wait for"
    );
}

#[test]
fn a_failed_fill_makes_the_next_in_line_the_holder() {
    let mut leases = held();
    leases.park(0, b"k", waiter(7, 2_000));
    leases.park(0, b"k", waiter(8, 2_000));
    assert_eq!(
        leases.release(0, b"k", token(9), 1_010, || token(2)),
        Released::NotHeld,
        "not the holder's token"
    );
    assert_eq!(
        leases.release(0, b"k", token(1), 1_010, || token(2)),
        Released::PassedOn((7, Answer::Fill(token(2))))
    );
    leases.disconnected(1);
    assert_eq!(
        due(&mut leases, 1_020, || token(3)),
        [],
        "no longer the holder"
    );
    leases.disconnected(107);
    assert_eq!(
        due(&mut leases, 1_020, || token(3)),
        [(8, Answer::Fill(token(3)))]
    );
    assert_eq!(due(&mut leases, 1_069, || token(4)), []);
    assert_eq!(leases.len(), 1);
    assert_eq!(due(&mut leases, 1_070, || token(4)), []);
    assert!(leases.is_empty() && leases.next_end_ms().is_none());
}

#[test]
fn patience_ends_before_the_lease_is_handed_on() {
    let mut leases = held();
    leases.park(0, b"k", waiter(7, 1_050));
    leases.park(0, b"k", waiter(8, 1_051));
    assert_eq!(leases.next_end_ms(), Some(1_050));
    let wakes = due(&mut leases, 1_050, || token(2));
    assert_eq!(wakes, [(7, Answer::Busy), (8, Answer::Fill(token(2)))]);
}

#[test]
fn who_waits_for_a_key_whose_slot_left_is_told_so_and_the_lease_is_gone() {
    let mut leases = held();
    leases.park(0, b"k", waiter(7, 2_000));
    leases.park(0, b"k", waiter(8, 2_000));
    assert_eq!(leases.slots_left(10, |_| true), (vec![], true));
    let slot = slot(b"k");
    let (wakes, _) = leases.slots_left(10, |other| other != slot);
    assert_eq!(wakes, [(7, Answer::Moved(slot)), (8, Answer::Moved(slot))]);
    assert!(leases.is_empty() && leases.parked() == 0);
    assert_eq!(due(&mut leases, 9_000, || token(2)), []);
}

#[test]
fn a_client_in_line_behind_itself_vanishes_from_both_places() {
    let mut leases = held();
    leases.park(
        0,
        b"k",
        Waiter {
            client: 1,
            ..waiter(7, 2_000)
        },
    );
    assert_eq!(leases.behind_itself(1), [7]);
    assert!(leases.forget(7));
    leases.disconnected(1);
    assert_eq!(due(&mut leases, 1_010, || token(2)), []);
    assert!(leases.is_empty() && leases.parked() == 0);
}

#[test]
fn all_leases_together_take_a_bounded_number_of_bytes() {
    let mut leases: Leases<u32> = Leases::default();
    let mut kept = 0;
    for n in 0..20_000u32 {
        let mut key = vec![7; MAX_KEY_BYTES];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let asked = leases.ask(0, &key, 1, token(1), 1_000, 50);
        assert_eq!(
            asked,
            Asked::Granted(token(1)),
            "with a token, and maybe no lease"
        );
        kept += usize::from(leases.is_held(0, &key, 1_000));
        assert!(leases.bytes() <= MAX_BYTES);
    }
    assert!((12_000..18_000).contains(&kept), "{kept} leases");
    leases.clear(None);
    assert_eq!(due(&mut leases, 1_000, || token(2)), []);
    assert_eq!(leases.bytes(), 0);
}

#[test]
fn an_abandoned_lease_is_taken_over() {
    let mut leases = held();
    let asked = leases.ask(0, b"k", 2, token(2), 1_050, 50);
    assert_eq!(asked, Asked::Granted(token(2)));
    let released = leases.release(0, b"k", token(1), 1_050, || token(3));
    assert_eq!(released, Released::NotHeld);
    leases.clear(Some(1));
    assert_eq!(due(&mut leases, 1_050, || token(3)), []);
    assert_eq!(leases.len(), 1);
    leases.clear(None);
    assert_eq!(due(&mut leases, 1_050, || token(3)), []);
    assert!(leases.is_empty());
}

#[test]
fn a_lease_from_before_a_flush_is_worth_nothing_before_it_is_found() {
    for db in [None, Some(0)] {
        let mut leases = held();
        leases.park(0, b"k", waiter(7, 2_000));
        leases.clear(db);
        let released = leases.release(0, b"k", token(1), 1_010, || token(9));
        assert_eq!(released, Released::NotHeld);
        let asked = leases.ask(0, b"k", 2, token(2), 1_010, 50);
        assert_eq!(
            asked,
            Asked::Granted(token(2)),
            "the data went, so another may fill"
        );
        assert!(leases.park(0, b"k", waiter(8, 2_000)));
        leases.disconnected(1);
        let wakes = due(&mut leases, 1_010, || token(9));
        assert_eq!(
            wakes,
            [(7, Answer::Look)],
            "not handed the lease of the holder that is gone"
        );
        leases.disconnected(2);
        let wakes = due(&mut leases, 1_010, || token(9));
        assert_eq!(wakes, [(8, Answer::Fill(token(9)))]);
    }
}

/// 500 callers wait for one value of a megabyte: each turn has one of them reply, not all.
#[test]
fn the_woken_reply_a_bounded_number_of_bytes_at_a_time() {
    for (bytes, at_once) in [(1 << 20, 1), (64 * 1024, 4), (100, 64)] {
        let mut leases = held();
        for handle in 0..500 {
            leases.park(0, b"k", waiter(handle, 9_000));
        }
        leases.filled(0, b"k", bytes);
        let mut told = Vec::new();
        while leases.is_behind(1_000) {
            let wakes = leases.advance(1_000, 64, || token(2));
            assert!((1..=at_once).contains(&wakes.len()), "{}", wakes.len());
            told.extend(wakes);
        }
        let all: Vec<_> = (0..500).map(|handle| (handle, Answer::Look)).collect();
        assert_eq!(told, all, "in order of arrival");
    }
}

/// As many leases as there can be, of one client, with a long line on one of them; an event that concerns them all
/// takes no longer than if they were few, and is dealt with in turns.
#[cfg(debug_assertions)]
#[test]
fn what_happens_to_many_leases_at_once_goes_in_bounded_turns() {
    for event in ["disconnect", "flush", "flush of a database", "end", "fill"] {
        let mut leases: Leases<u32> = Leases::default();
        for n in 0..MAX_LEASES as u32 {
            leases.ask(0, &n.to_le_bytes(), 1, token(1), 1_000, 50);
        }
        let key = 7u32.to_le_bytes();
        for handle in 0..10_000 {
            assert!(leases.park(0, &key, waiter(handle, 90_000)));
        }
        let mut now_ms = 1_000;
        let (steps, ()) = work::of(|| match event {
            "disconnect" => {
                assert_eq!(leases.behind_itself(1), []);
                leases.disconnected(1);
            }
            "flush" => leases.clear(None),
            "flush of a database" => leases.clear(Some(0)),
            "fill" => leases.filled(0, &key, 10),
            _ => now_ms = 1_050,
        });
        assert!(steps <= 64, "{event}: {steps} steps");
        let mut woken = 0;
        while leases.is_behind(now_ms) {
            let (steps, wakes) = work::of(|| leases.advance(now_ms, 64, || token(2)));
            // A step each, and a table that shrinks by a shard.
            assert!(steps <= 64 * 64, "{event}: {steps} steps in one turn");
            woken += wakes.len();
        }
        let (left, looked) = match event {
            "fill" => (MAX_LEASES - 1, 10_000),
            "flush" | "flush of a database" => (0, 10_000),
            _ => (1, 1),
        };
        assert_eq!((leases.len(), woken), (left, looked), "{event}");
    }
}

/// Random histories: the server answers each client that waits, and once; a key has one holder, all tables agree.
#[test]
fn nobody_is_forgotten() {
    let mut rng = fastrand::Rng::with_seed(crate::seed::seed());
    let mut leases: Leases<u32> = Leases::default();
    let mut waiting = std::collections::HashMap::new();
    let epoch = std::cell::Cell::new(0);
    let (mut now_ms, mut handle) = (1_000, 0);
    for _ in 0..50_000 {
        let key = [rng.u8(..5)];
        let client = rng.u64(..20);
        let fresh = || {
            epoch.set(epoch.get() + 1);
            token(epoch.get())
        };
        let wakes = match rng.u8(..12) {
            0..5 => {
                let mine = fresh();
                if leases.ask(0, &key, client, mine, now_ms, rng.u64(1..30)) == Asked::Held {
                    handle += 1;
                    let until_ms = now_ms + rng.u64(1..40);
                    let waiter = Waiter {
                        handle,
                        client,
                        lease_ms: rng.u64(1..30),
                        until_ms,
                    };
                    assert!(leases.park(0, &key, waiter));
                    waiting.insert(handle, until_ms);
                }
                Vec::new()
            }
            5 => {
                leases.filled(0, &key, rng.usize(..WAKE_BYTES));
                Vec::new()
            }
            6 => {
                let old = token(rng.u64(epoch.get().saturating_sub(30)..=epoch.get()));
                match leases.release(0, &key, old, now_ms, fresh) {
                    Released::PassedOn(wake) => vec![wake],
                    Released::Freed | Released::NotHeld => Vec::new(),
                }
            }
            7 => {
                leases.disconnected(client);
                Vec::new()
            }
            8 if rng.u8(..) < 10 => {
                leases.clear((rng.u8(..) < 128).then_some(0));
                Vec::new()
            }
            9 => {
                if let Some(gone) = waiting.keys().next().copied() {
                    assert!(leases.forget(gone));
                    waiting.remove(&gone);
                }
                Vec::new()
            }
            _ => {
                now_ms += rng.u64(..10);
                leases.advance(now_ms, rng.usize(..20), fresh)
            }
        };
        for (woken, _) in wakes {
            assert!(
                waiting.remove(&woken).is_some(),
                "woken twice or never parked"
            );
        }
        assert_eq!(leases.parked(), waiting.len());
        assert_eq!(leases.by_key.len(), leases.len());
        assert_eq!(leases.ends.len(), leases.len());
        assert_eq!(leases.patience.len(), leases.parked());
        assert_eq!(leases.parked.len(), leases.parked());
        let looking = leases.looking.values().map(|l| l.line.len());
        let in_line = leases.leases.values().map(|l| l.line.len());
        assert_eq!(looking.chain(in_line).sum::<usize>(), leases.parked());
        let orphans = leases.orphaned.iter().map(|(_, held)| held.len());
        let held = leases.by_client.values().map(BTreeSet::len);
        assert!(held.chain(orphans).sum::<usize>() >= leases.len());
    }
    now_ms += 1_000;
    while !leases.is_empty() || leases.is_behind(now_ms) {
        let wakes = due(&mut leases, now_ms, || token(u64::MAX));
        wakes
            .into_iter()
            .for_each(|(woken, _)| assert!(waiting.remove(&woken).is_some()));
        now_ms += 1_000;
    }
    assert!(waiting.is_empty(), "{} callers stuck", waiting.len());
}

/// However many wait, a piece of the search for those whose slots have gone is bounded, and in the end all are told.
#[test]
fn looking_for_slots_that_have_gone_takes_no_longer_because_many_wait() {
    let mut leases: Leases<u32> = Leases::default();
    const MANY: u32 = 40_000;
    let key = |n: u32| format!("key {}", n / 2).into_bytes();
    for n in 0..MANY {
        leases.ask(0, &key(n), 0, token(1), 1_000, 60_000);
        let waiter = Waiter {
            client: u64::from(n) + 1,
            ..waiter(n, 50_000)
        };
        assert!(leases.park(0, &key(n), waiter));
    }
    let is_here = |slot: u16| slot < 8_000;
    let (mut told, mut pieces) = (Vec::new(), 0);
    loop {
        let (steps, (wakes, is_through)) = work::of(|| leases.slots_left(100, is_here));
        assert!(steps <= 4_000, "{steps} steps");
        told.extend(wakes);
        pieces += 1;
        if is_through {
            break;
        }
        // Others come and go meanwhile.
        leases.forget(pieces * 7);
    }
    assert!(pieces > MANY / 200);
    for (handle, answer) in &told {
        assert_eq!(*answer, Answer::Moved(slot(&key(*handle))));
    }
    let mut handles: Vec<u32> = told.into_iter().map(|(handle, _)| handle).collect();
    handles.dedup();
    let gone = (0..MANY).filter(|n| !is_here(slot(&key(*n))));
    let told_all = gone.filter(|n| !handles.contains(n));
    assert!(
        told_all.count() <= pieces as usize,
        "but for those that left"
    );
    let left = leases.parked();
    assert_eq!(leases.slots_left(usize::MAX, is_here), (vec![], true));
    assert_eq!(leases.parked(), left);
}

/// Databases that are flushed one after the other, each with a lease.
#[test]
fn a_piece_of_the_search_for_void_leases_does_not_grow_with_the_databases_that_were_flushed() {
    const DATABASES: usize = 20_000;
    let mut leases: Leases<u32> = Leases::default();
    for db in 0..DATABASES {
        leases.ask(db, b"k", 1, token(1), 1_000, 60_000);
    }
    for db in 0..DATABASES {
        leases.clear(Some(db));
    }
    let (mut longest, began) = (0, leases.len());
    while leases.is_behind(1_000) {
        let (steps, wakes) = work::of(|| leases.advance(1_000, 10, || token(2)));
        longest = longest.max(steps);
        assert_eq!(wakes, []);
    }
    assert_eq!((began, leases.len()), (DATABASES, 0));
    assert!(longest <= 1_000, "{longest} steps");
}
