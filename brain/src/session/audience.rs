//! The subscribers of one session, grouped by the outlet that reaches them.
//!
//! To add a kind of subscriber (a gRPC stream, server-sent events, another brain): implement [`Outlet`] for what carries the
//! events and [`Subscriber`] for the one who follows. An outlet gets each event once, with the numbers of its subscribers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chatbox_shared::ids::{SessionId, UserId};
use smallvec::SmallVec;

use super::event::{Publication, SessionEvent};

/// Carries events to a group of subscribers: a link to a gateway, or the stream of one client.
pub trait Outlet: Send + Sync {
    /// Queues one event for the subscribers with these numbers. Called under the session's lock, so it must not wait. An
    /// outlet whose queue is full must end its subscribers; they resume from the log.
    fn publish(&self, publication: &Publication<'_>, numbers: &[u64]);
}

/// Someone who follows sessions.
pub trait Subscriber: Send + Sync {
    /// What carries events to this subscriber. Always the same outlet.
    fn outlet(&self) -> Arc<dyn Outlet>;

    /// The number of this subscriber at its outlet. Never changes.
    fn number(&self) -> u64;

    /// The user who follows. Never changes.
    fn user(&self) -> UserId;

    /// The session was erased and must be released. Called without the session's lock.
    fn release(&self, session: SessionId);
}

/// One replay of a log to a subscriber that follows live after it.
pub trait Follower: Sync {
    /// Who follows live after the replay.
    fn subscriber(&self) -> Arc<dyn Subscriber>;

    /// Whether the replay must stop: the subscriber is gone, has closed the session, has opened it again, or may not read it any
    /// more. Asked under the session's lock before the subscriber joins the audience.
    fn is_closed(&self) -> bool;

    /// Queues one event for the subscriber alone. Does nothing once the replay must stop.
    fn deliver(&self, event: SessionEvent<'_>);

    /// As [`Follower::deliver`], then waits until the client has taken the event, `patience` at most.
    fn deliver_paced(&self, event: SessionEvent<'_>, patience: Duration) -> impl Future<Output = Paced> + Send;
}

/// The result of a paced delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paced {
    /// The client has taken the event.
    Taken,
    /// The replay must stop.
    Gone,
    /// The client did not take the event in time.
    TooSlow,
}

/// Who gets an event.
#[derive(Clone, Copy)]
pub enum Recipients<'a> {
    /// All subscribers.
    Everyone,
    /// All subscribers of other users.
    OtherUsers(&'a UserId),
    /// All subscribers but this one.
    AllBut(&'a dyn Subscriber),
}

/// The subscribers of one outlet.
struct Group {
    outlet: Arc<dyn Outlet>,
    /// The numbers of `members`, in the same order: ready for [`Outlet::publish`].
    numbers: Vec<u64>,
    members: SmallVec<[Arc<dyn Subscriber>; 1]>,
}

/// All subscribers of a session. The groups change on subscribe and unsubscribe only, not for each event.
#[derive(Default)]
pub struct Audience {
    groups: SmallVec<[Group; 1]>,
}

impl Audience {
    /// Adds a subscriber that is not in the audience.
    pub fn add(&mut self, subscriber: Arc<dyn Subscriber>) {
        let (outlet, number) = (subscriber.outlet(), subscriber.number());
        match self.groups.iter_mut().find(|group| same(group.outlet.as_ref(), outlet.as_ref())) {
            Some(group) => {
                group.numbers.push(number);
                group.members.push(subscriber);
            }
            None => {
                let members = SmallVec::from_iter([subscriber]);
                self.groups.push(Group { outlet, numbers: vec![number], members });
            }
        }
    }

    /// Removes a subscriber, if it is in the audience.
    pub fn remove(&mut self, subscriber: &dyn Subscriber) {
        for group in &mut self.groups {
            if let Some(at) = group.members.iter().position(|member| same(member.as_ref(), subscriber)) {
                group.members.remove(at);
                group.numbers.remove(at);
            }
        }
        self.groups.retain(|group| !group.members.is_empty());
    }

    /// Removes all subscribers and returns them.
    pub fn take(&mut self) -> Vec<Arc<dyn Subscriber>> {
        std::mem::take(&mut self.groups).into_iter().flat_map(|group| group.members).collect()
    }

    /// Whether there are no subscribers.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Hands an event to each outlet once.
    pub fn publish(&self, publication: &Publication<'_>, to: Recipients<'_>) {
        for group in &self.groups {
            match to {
                Recipients::Everyone => group.outlet.publish(publication, &group.numbers),
                Recipients::OtherUsers(user) => group.publish_to(publication, |member| member.user() != *user),
                Recipients::AllBut(one) => group.publish_to(publication, |member| !same(member, one)),
            }
        }
    }
}

impl Group {
    fn publish_to(&self, publication: &Publication<'_>, wanted: impl Fn(&dyn Subscriber) -> bool) {
        let members = self.members.iter().filter(|member| wanted(member.as_ref()));
        let numbers: Vec<u64> = members.map(|member| member.number()).collect();
        if !numbers.is_empty() {
            self.outlet.publish(publication, &numbers);
        }
    }
}

/// Whether two references name the same object. A connection that came again over a new link is another subscriber.
fn same<A: ?Sized, B: ?Sized>(one: &A, other: &B) -> bool {
    std::ptr::addr_eq(std::ptr::from_ref(one), std::ptr::from_ref(other))
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct FakeOutlet {
        published: Mutex<Vec<Vec<u64>>>,
    }

    impl Outlet for FakeOutlet {
        fn publish(&self, _: &Publication<'_>, numbers: &[u64]) {
            self.published.lock().push(numbers.to_vec());
        }
    }

    struct FakeSubscriber {
        outlet: Arc<FakeOutlet>,
        number: u64,
        user: &'static str,
    }

    impl Subscriber for FakeSubscriber {
        fn outlet(&self) -> Arc<dyn Outlet> {
            Arc::clone(&self.outlet) as Arc<dyn Outlet>
        }
        fn number(&self) -> u64 {
            self.number
        }
        fn user(&self) -> UserId {
            UserId::new(self.user)
        }
        fn release(&self, _: SessionId) {}
    }

    #[test]
    fn each_outlet_gets_an_event_once_with_the_numbers_it_serves() {
        let (one, two) = (Arc::new(FakeOutlet::default()), Arc::new(FakeOutlet::default()));
        let subscriber = |outlet: &Arc<FakeOutlet>, number, user| {
            Arc::new(FakeSubscriber { outlet: Arc::clone(outlet), number, user })
        };
        let (ann, bob, ann_too) = (subscriber(&one, 1, "ann"), subscriber(&one, 2, "bob"), subscriber(&two, 1, "ann"));
        let mut audience = Audience::default();
        for member in [&ann, &bob, &ann_too] {
            audience.add(Arc::clone(member) as Arc<dyn Subscriber>);
        }
        let publication = Publication::new(SessionId::generate(), SessionEvent::Deleted);
        audience.publish(&publication, Recipients::Everyone);
        audience.publish(&publication, Recipients::OtherUsers(&UserId::new("ann")));
        audience.publish(&publication, Recipients::AllBut(bob.as_ref()));
        audience.remove(ann.as_ref());
        audience.publish(&publication, Recipients::Everyone);
        assert_eq!(*one.published.lock(), [vec![1, 2], vec![2], vec![1], vec![2]]);
        assert_eq!(*two.published.lock(), [vec![1], vec![1], vec![1]]);
        assert_eq!(audience.take().len(), 2);
        assert!(audience.is_empty());
    }
}
