//! The ledger: a call is recorded once, and no calls at the same time use more than their user is allowed.

use super::*;
use crate::ledger::{Allowance, Call, CallFinish, Day, DayUsage, Purpose, Reservation, UsageRecord};
use crate::usage::TokenUsage;

/// The first moment of 2026-11-24.
const DAY: Timestamp = Timestamp(1_795_478_400_000);
/// The same time on the next day.
const NEXT_DAY: Timestamp = Timestamp(1_795_564_800_000);
const UNLIMITED: Allowance = Allowance { tokens: None, cost: None };

/// A reservation of so many tokens, which cost ten each.
fn reservation(call: &Call, tokens: u64) -> Reservation {
    let expires_at = Timestamp(call.started_at.0 + 60_000);
    Reservation { call: call.clone(), tokens, cost: tokens * 10, input_estimate: tokens / 2, expires_at }
}

/// The record of a call that used so many tokens out of 2 in, and cost ten each.
fn used(call: &Call, output: u64) -> UsageRecord {
    UsageRecord {
        call: call.clone(),
        usage: TokenUsage { input: 2, cached: 1, output, estimated: false },
        finish: CallFinish::Stop,
        error: None,
        first_token_ms: Some(5),
        total_ms: 50,
        cost: Some((2 + output) * 10),
    }
}

fn tokens(limit: u64) -> Allowance {
    Allowance { tokens: Some(limit), cost: None }
}

fn sum_of<'a>(records: impl IntoIterator<Item = &'a UsageRecord>) -> UsageSum {
    records.into_iter().map(UsageSum::of).fold(UsageSum::default(), |sum, one| UsageSum {
        calls: sum.calls + one.calls,
        input: sum.input + one.input,
        cached: sum.cached + one.cached,
        output: sum.output + one.output,
        cost: sum.cost + one.cost,
    })
}

/// The account of the user's day, if there is one.
async fn account(store: &dyn Store, user: &str, at: Timestamp) -> Option<DayUsage> {
    let found = store.user_usage(&UserId::new(user), Day::of(at), 1).await.unwrap();
    found.into_iter().find(|account| account.day == Day::of(at))
}

async fn open(store: &dyn Store, user: &str) -> Vec<Reservation> {
    store.open_reservations(&UserId::new(user)).await.unwrap()
}

pub(super) async fn a_record_reads_back_as_it_was_written(store: &dyn Store) {
    let full = UsageRecord {
        call: Call {
            purpose: Purpose::Name,
            seq: 0,
            attempt: u32::MAX,
            model_id: "model $x.y".into(),
            provider: "openai".into(),
            ..call("ünï\u{202e}\"'$codé", Timestamp(1_795_478_400_123))
        },
        usage: TokenUsage { input: 1 << 40, cached: 0, output: 1 << 41, estimated: true },
        finish: CallFinish::Failed,
        error: Some("timeout".into()),
        first_token_ms: Some(0),
        total_ms: 1 << 35,
        cost: Some(0),
    };
    let bare = UsageRecord { error: None, first_token_ms: None, cost: None, ..used(&call("user", DAY), 3) };
    let mut all = vec![full, bare];
    all.extend(CallFinish::ALL.map(|finish| UsageRecord { finish, ..used(&call("user", DAY), 3) }));
    for record in &all {
        assert_eq!(store.record_usage(record).await.unwrap(), *record);
        // The ledger's record comes back, not the one that is offered.
        let other = UsageRecord { finish: CallFinish::Lost, total_ms: 1, ..used(&record.call, 77) };
        assert_eq!(store.record_usage(&other).await.unwrap(), *record);
        assert_eq!(store.session_usage(record.call.session).await.unwrap(), UsageSum::of(record));
    }
}

pub(super) async fn a_reservation_reads_back_and_counts_once(store: &dyn Store) {
    let first = Reservation {
        call: Call { purpose: Purpose::Name, seq: 7, attempt: 3, ..call("user$.é", Timestamp(DAY.0 + 123)) },
        tokens: 1 << 40,
        cost: 0,
        input_estimate: 9,
        expires_at: Timestamp(DAY.0 + 777),
    };
    let second = reservation(&call("user$.é", DAY), 10);
    for _ in 0..2 {
        assert!(store.reserve_usage(&first, &UNLIMITED).await.unwrap());
    }
    assert!(store.reserve_usage(&second, &UNLIMITED).await.unwrap());
    // Again and again, also where there would be no room for another one.
    let nothing = tokens(0);
    let again = together((0..8).map(|_| store.reserve_usage(&second, &nothing))).await;
    assert!(again.into_iter().all(Result::unwrap));
    assert_eq!(open(store, "user$.é").await, [first, second]);
    let expected = DayUsage { reserved_tokens: (1 << 40) + 10, reserved_cost: 100, ..DayUsage::unused(Day::of(DAY)) };
    assert_eq!(account(store, "user$.é", DAY).await, Some(expected));
    assert_eq!(open(store, "user").await, []);
    assert_eq!(account(store, "user", DAY).await, None);

    // Of the same reservation several times at once, too, on a day that has no account yet.
    let third = reservation(&call("racer", DAY), 10);
    let racing = together((0..8).map(|_| store.reserve_usage(&third, &UNLIMITED))).await;
    assert!(racing.into_iter().all(Result::unwrap));
    assert_eq!(account(store, "racer", DAY).await.unwrap().reserved_tokens, 10);
    assert_eq!(open(store, "racer").await, [third]);
}

pub(super) async fn racing_reservations_never_exceed_the_allowance(store: &dyn Store) {
    for (user, allowance) in [("t", tokens(55)), ("c", Allowance { tokens: None, cost: Some(550) })] {
        let all: Vec<_> = (0..16).map(|_| reservation(&call(user, DAY), 10)).collect();
        let outcomes = together(all.iter().map(|reservation| store.reserve_usage(reservation, &allowance))).await;
        let fit: Vec<_> =
            all.iter().zip(outcomes).filter(|(_, fits)| *fits.as_ref().unwrap()).map(|(one, _)| one.clone()).collect();
        assert_eq!(fit.len(), 5, "{user}");
        let mut there = open(store, user).await;
        there.sort_by_key(|reservation| reservation.call.id);
        let mut wanted = fit;
        wanted.sort_by_key(|reservation| reservation.call.id);
        assert_eq!(there, wanted);
        let account = account(store, user, DAY).await.unwrap();
        assert_eq!((account.reserved_tokens, account.reserved_cost), (50, 500));
    }
}

pub(super) async fn racing_records_of_one_call_make_one(store: &dyn Store) {
    for round in 0..5 {
        let call = call(&format!("user {round}"), DAY);
        assert!(store.reserve_usage(&reservation(&call, 100), &UNLIMITED).await.unwrap());
        let all: Vec<_> = (0..8).map(|n| used(&call, 10 + n)).collect();
        let seen = together(all.iter().map(|record| store.record_usage(record))).await;
        let seen: Vec<_> = seen.into_iter().map(Result::unwrap).collect();
        assert!(all.contains(&seen[0]) && seen.iter().all(|record| *record == seen[0]), "{seen:#?}");
        assert_eq!(store.session_usage(call.session).await.unwrap(), UsageSum::of(&seen[0]));
        let expected = DayUsage { used: UsageSum::of(&seen[0]), ..DayUsage::unused(call.day()) };
        assert_eq!(account(store, call.user.as_str(), DAY).await, Some(expected));
    }
}

pub(super) async fn a_call_is_recorded_and_settled_once(store: &dyn Store) {
    let call = call("user", DAY);
    let reserved = reservation(&call, 100);
    assert!(store.reserve_usage(&reserved, &UNLIMITED).await.unwrap());
    let first = used(&call, 10);
    let expected = Some(DayUsage { used: UsageSum::of(&first), ..DayUsage::unused(call.day()) });
    for output in [10, 20, 30] {
        assert_eq!(store.record_usage(&used(&call, output)).await.unwrap(), first);
        assert_eq!(account(store, "user", DAY).await, expected);
        assert_eq!(open(store, "user").await, []);
    }
    // A late repetition of the reservation reserves nothing any more.
    assert!(store.reserve_usage(&reserved, &UNLIMITED).await.unwrap());
    assert!(store.reserve_usage(&reserved, &tokens(0)).await.unwrap());
    assert_eq!(account(store, "user", DAY).await, expected);

    // Without a reservation there is a record, and no account changes.
    let unreserved = super::ledger::call("user", DAY);
    let record = used(&unreserved, 4);
    assert_eq!(store.record_usage(&record).await.unwrap(), record);
    assert_eq!(store.session_usage(unreserved.session).await.unwrap(), UsageSum::of(&record));
    assert_eq!(account(store, "user", DAY).await, expected);
}

pub(super) async fn each_limit_refuses_on_its_own(store: &dyn Store) {
    let (both, no_tokens, no_money) = (
        Allowance { tokens: Some(10), cost: Some(100) },
        Allowance { tokens: Some(9), cost: Some(100) },
        Allowance { tokens: Some(10), cost: Some(99) },
    );
    let wanted = reservation(&call("user", DAY), 10);
    // One that is larger than the allowance is refused where there is no account, and makes none.
    for allowance in [no_tokens, no_money, tokens(0), tokens(9)] {
        assert!(!store.reserve_usage(&wanted, &allowance).await.unwrap(), "{allowance:?}");
    }
    assert_eq!(account(store, "user", DAY).await, None);
    assert!(store.reserve_usage(&wanted, &both).await.unwrap());

    // Where there is one, nothing of it changes.
    let before = (account(store, "user", DAY).await, open(store, "user").await);
    let more = reservation(&call("user", DAY), 10);
    for allowance in [
        Allowance { tokens: Some(19), cost: None },
        Allowance { tokens: None, cost: Some(199) },
        Allowance { tokens: Some(19), cost: Some(u64::MAX) },
        Allowance { tokens: Some(u64::MAX), cost: Some(199) },
    ] {
        assert!(!store.reserve_usage(&more, &allowance).await.unwrap(), "{allowance:?}");
        assert_eq!((account(store, "user", DAY).await, open(store, "user").await), before);
    }
    assert!(store.reserve_usage(&more, &Allowance { tokens: Some(20), cost: Some(200) }).await.unwrap());

    // What is used counts as what is reserved does; nothing more fits, not even nothing over the limit.
    store.record_usage(&used(&wanted.call, 8)).await.unwrap();
    let nothing = reservation(&call("user", DAY), 0);
    assert!(!store.reserve_usage(&nothing, &tokens(19)).await.unwrap());
    assert!(store.reserve_usage(&nothing, &tokens(20)).await.unwrap());

    // Without limits everything fits.
    let huge = reservation(&call("user", DAY), 1 << 50);
    assert!(store.reserve_usage(&huge, &UNLIMITED).await.unwrap());
    let largest = Allowance { tokens: Some(u64::MAX), cost: Some(u64::MAX) };
    assert!(store.reserve_usage(&reservation(&call("user", DAY), 1), &largest).await.unwrap());
}

pub(super) async fn a_settled_reservation_frees_what_was_not_used(store: &dyn Store) {
    let first = reservation(&call("user", DAY), 50);
    let second = reservation(&call("user", DAY), 50);
    assert!(store.reserve_usage(&first, &tokens(60)).await.unwrap());
    assert!(!store.reserve_usage(&second, &tokens(60)).await.unwrap());
    store.record_usage(&used(&first.call, 8)).await.unwrap();
    assert!(store.reserve_usage(&second, &tokens(60)).await.unwrap());
    let expected = DayUsage {
        day: Day::of(DAY),
        used: UsageSum { calls: 1, input: 2, cached: 1, output: 8, cost: 100 },
        reserved_tokens: 50,
        reserved_cost: 500,
    };
    assert_eq!(account(store, "user", DAY).await, Some(expected));
    // One that used more than was expected counts in full.
    store.record_usage(&used(&second.call, 98)).await.unwrap();
    assert_eq!(account(store, "user", DAY).await.unwrap().used.tokens(), 110);
    assert!(!store.reserve_usage(&reservation(&call("user", DAY), 0), &tokens(60)).await.unwrap());
}

pub(super) async fn days_and_users_are_apart(store: &dyn Store) {
    let last_moment = Timestamp(NEXT_DAY.0 - 1);
    for (user, at) in [("user", last_moment), ("user", NEXT_DAY), ("other", NEXT_DAY)] {
        let wanted = reservation(&call(user, at), 10);
        assert!(store.reserve_usage(&wanted, &tokens(10)).await.unwrap(), "{user} {at}");
        assert!(!store.reserve_usage(&reservation(&call(user, at), 1), &tokens(10)).await.unwrap(), "{user} {at}");
    }
    let days = |user: &str, from, limit| {
        let user = UserId::new(user);
        async move {
            let found = store.user_usage(&user, Day::of(from), limit).await.unwrap();
            found.into_iter().map(|account| account.day.to_string()).collect::<Vec<_>>()
        }
    };
    assert_eq!(days("user", Timestamp(0), 10).await, ["2026-11-24", "2026-11-25"]);
    assert_eq!(days("user", DAY, 1).await, ["2026-11-24"]);
    assert_eq!(days("user", NEXT_DAY, 10).await, ["2026-11-25"]);
    assert_eq!(days("user", Timestamp(NEXT_DAY.0 + 86_400_000), 10).await, Vec::<String>::new());
    assert_eq!(days("user", DAY, 0).await, Vec::<String>::new());
    assert_eq!(days("other", DAY, 10).await, ["2026-11-25"]);
    assert_eq!(days("nobody", DAY, 10).await, Vec::<String>::new());
}

pub(super) async fn open_and_expired_reservations_until_they_are_settled(store: &dyn Store) {
    let mut all = Vec::new();
    for (user, at, expires) in [
        ("a", DAY, 300),
        ("a", DAY, 100),
        ("b", DAY, 200),
        ("a", NEXT_DAY, 400),
        ("c", DAY, 50_000),
        ("c", DAY, 150),
        ("b", DAY, 60_000),
    ] {
        let one = Reservation { expires_at: Timestamp(expires), ..reservation(&call(user, at), 10) };
        assert!(store.reserve_usage(&one, &UNLIMITED).await.unwrap());
        all.push(one);
    }
    let some = |places: &[usize]| places.iter().map(|place| all[*place].clone()).collect::<Vec<_>>();
    let expired = |now, limit| async move { store.expired_reservations(Timestamp(now), limit).await.unwrap() };
    assert_eq!(open(store, "a").await, some(&[1, 0, 3]));
    assert_eq!(open(store, "b").await, some(&[2, 6]));
    assert_eq!(expired(1_000, 10).await, some(&[1, 5, 2, 0, 3]));
    assert_eq!(expired(300, 10).await, some(&[1, 5, 2]));
    assert_eq!(expired(1_000, 2).await, some(&[1, 5]));
    assert_eq!(expired(100, 10).await, []);
    assert_eq!(expired(1_000, 0).await, []);

    // Whoever settles the first of an account makes the next one the first.
    for place in [1, 2, 5] {
        let lost = all[place].lost(0, CallFinish::Lost, None, Timestamp(all[place].call.started_at.0 + 9));
        assert_eq!(store.record_usage(&lost).await.unwrap(), lost);
    }
    assert_eq!(expired(1_000, 10).await, some(&[0, 3]));
    assert_eq!(open(store, "a").await, some(&[0, 3]));
    assert_eq!(open(store, "b").await, some(&[6]));
    for one in &all {
        store.record_usage(&used(&one.call, 1)).await.unwrap();
    }
    assert_eq!(expired(100_000, 10).await, []);
    for user in ["a", "b", "c"] {
        assert_eq!(open(store, user).await, []);
    }
}

pub(super) async fn a_sessions_sum_is_that_of_its_records(store: &dyn Store) {
    let row = session_row("user");
    store.create_session(&row).await.unwrap();
    assert_eq!(store.session_usage(row.id).await.unwrap(), UsageSum::default());
    let mut records = Vec::new();
    for n in 0..25 {
        let call = Call { session: row.id, ..call("user", if n % 2 == 0 { DAY } else { NEXT_DAY }) };
        let cost = (n % 3 > 0).then_some(n * 1_000_000_000_000);
        records.push(UsageRecord { cost, ..used(&call, n) });
        store.record_usage(&records[records.len() - 1]).await.unwrap();
        store.record_usage(&used(&super::ledger::call("user", DAY), 5)).await.unwrap();
    }
    let sum = sum_of(&records);
    assert_eq!(store.session_usage(row.id).await.unwrap(), sum);

    let stored = |store| async move { Store::session(store, row.id).await.unwrap().unwrap().usage };
    let of = |calls, input| UsageSum { calls, input, ..UsageSum::default() };
    for (saved, expected) in [(sum, sum), (of(24, 9_999), sum), (of(25, 1), of(25, 1)), (of(26, 2), of(26, 2))] {
        store.save_session_usage(row.id, &saved).await.unwrap();
        assert_eq!(stored(store).await, expected);
    }
    let racing: Vec<_> = (30..50).map(|calls| of(calls, calls)).collect();
    for saved in together(racing.iter().map(|usage| store.save_session_usage(row.id, usage))).await {
        saved.unwrap();
    }
    assert_eq!(stored(store).await, of(49, 49));
    store.save_session_usage(SessionId::generate(), &sum).await.unwrap();

    // Erasing a session erases what was said, not what it cost.
    store.erase_session(row.id).await.unwrap();
    assert_eq!(store.session_usage(row.id).await.unwrap(), sum);
    assert_eq!(store.record_usage(&used(&records[3].call, 999)).await.unwrap(), records[3]);
}

pub(super) async fn racing_calls_leave_accounts_that_equal_the_ledger(store: &dyn Store) {
    let users = ["a", "b", "c"];
    let calls: Vec<_> = (0..90).map(|n| call(users[n % 3], if n / 3 % 2 == 0 { DAY } else { NEXT_DAY })).collect();
    let allowance = tokens(400);
    let made = together(calls.iter().zip(0_u64..).map(|(call, n)| async move {
        if !store.reserve_usage(&reservation(call, 30), &allowance).await.unwrap() {
            return None;
        }
        let account = account(store, call.user.as_str(), call.started_at).await.unwrap();
        assert!(account.used.tokens() + account.reserved_tokens <= 400, "{account:?}");
        // Its own brain and another one, which takes it for lost.
        let (record, lost) = (used(call, n % 25), reservation(call, 30).lost(n % 15, CallFinish::Lost, None, NEXT_DAY));
        let (mine, theirs) = tokio::join!(store.record_usage(&record), store.record_usage(&lost));
        assert_eq!(mine.as_ref().unwrap(), theirs.as_ref().unwrap());
        Some(mine.unwrap())
    }))
    .await;
    let records: Vec<_> = made.into_iter().flatten().collect();
    assert!(records.len() >= 6 * 13, "{}", records.len());
    for user in users {
        let accounts = store.user_usage(&UserId::new(user), Day::of(DAY), 10).await.unwrap();
        assert_eq!(accounts.len(), 2);
        for account in accounts {
            let of_day = |record: &&UsageRecord| record.call.day() == account.day && record.call.user.as_str() == user;
            let used = sum_of(records.iter().filter(of_day));
            assert_eq!(account, DayUsage { used, ..DayUsage::unused(account.day) });
        }
        assert_eq!(open(store, user).await, []);
    }
}
