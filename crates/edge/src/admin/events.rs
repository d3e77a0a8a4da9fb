//! The snapshot once a second, for everybody who listens. While nobody does, the router is asked nothing.
//!
//! Bounded: [`LISTENERS_MAX`] at once, and each may be [`LATE_MAX`] snapshots late. One that is later is hung up on, even
//! where its connection takes nothing: to come back costs it nothing, for every event is the whole truth.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{convert::Infallible, io};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Desk, api};
use crate::reply::Reply;

/// Listeners at once. One more is refused.
const LISTENERS_MAX: usize = 32;

/// Snapshots that wait for a listener. Full: it is dropped.
const LATE_MAX: usize = 4;

/// Between two snapshots.
const EVERY: Duration = Duration::from_secs(1);

/// Who listens.
#[derive(Debug, Default)]
pub(super) struct Events {
    // A lock, because connections come and go while the snapshot is told.
    listeners: Mutex<Vec<Listener>>,
    came: Notify,
}

#[derive(Debug)]
struct Listener {
    to: mpsc::Sender<Bytes>,
    /// The head of its request: what it may hear is asked again for each event, for tokens end.
    head: HeaderMap,
    /// Ends its connection.
    cut: Arc<Notify>,
}

impl Events {
    /// One more listener, on the connection that `cut` ends; `None`: there are too many.
    pub(super) fn listen(&self, head: HeaderMap, cut: Arc<Notify>) -> Option<Reply> {
        let mut listeners = self.listeners();
        if listeners.len() >= LISTENERS_MAX {
            return None;
        }
        let (to, feed) = mpsc::channel(LATE_MAX);
        listeners.push(Listener { to, head, cut });
        self.came.notify_one();
        Some(Reply::new(Feed(feed).map_err(|never| -> io::Error { match never {} }).boxed()))
    }

    fn tell(&self, event: &Bytes, may_hear: impl Fn(&HeaderMap) -> bool) {
        let mut listeners = self.listeners();
        let ended = listeners.extract_if(.., |listener| !may_hear(&listener.head));
        ended.for_each(|listener| listener.cut.notify_one());
        listeners.retain(|listener| match listener.to.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                tracing::debug!("a listener is too slow and is hung up on");
                listener.cut.notify_one();
                false
            }
        });
    }

    fn is_heard(&self) -> bool {
        let mut listeners = self.listeners();
        listeners.retain(|listener| !listener.to.is_closed());
        !listeners.is_empty()
    }

    // A panic elsewhere leaves the list true: each change is one push or one retain.
    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the snapshot until the listener closes.
pub(super) async fn tell(desk: Arc<Desk>, mut stopped: watch::Receiver<bool>) {
    let mut due = Instant::now();
    loop {
        let turn = async {
            if !desk.events.is_heard() {
                desk.events.came.notified().await;
            }
            sleep_until(due).await;
        };
        tokio::select! {
            _ = stopped.changed() => break,
            () = turn => {}
        }
        due = Instant::now() + EVERY;
        let event = match api::snapshot(&desk).await {
            Ok(snapshot) => format!("event: snapshot\ndata: {snapshot}\n\n"),
            // A comment: it keeps the connection, and says nothing.
            Err(_) => ": the router does not answer\n\n".to_owned(),
        };
        desk.events.tell(&Bytes::from(event), |head| desk.who.admin(head).is_ok());
    }
    desk.events.listeners().clear();
}

/// The body of a reply that goes on.
struct Feed(mpsc::Receiver<Bytes>);

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_listener_too_many_is_refused_and_one_that_went_makes_room() {
        let events = Events::default();
        let mut replies: Vec<_> = (0..LISTENERS_MAX).map(|_| events.listen(HeaderMap::new(), Arc::default())).collect();
        assert!(replies.iter().all(Option::is_some));
        assert!(events.listen(HeaderMap::new(), Arc::default()).is_none());
        replies.pop();
        events.tell(&Bytes::from_static(b"x"), |_| true);
        assert!(events.listen(HeaderMap::new(), Arc::default()).is_some());
    }

    #[tokio::test]
    async fn a_listener_whose_token_has_ended_hears_no_more() {
        let (events, cut) = (Events::default(), Arc::<Notify>::default());
        let reply = events.listen(HeaderMap::new(), Arc::clone(&cut));
        events.tell(&Bytes::from_static(b"x"), |_| true);
        events.tell(&Bytes::from_static(b"secret"), |_| false);
        assert!(!events.is_heard());
        cut.notified().await;
        let heard = reply.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(heard, &b"x"[..]);
    }

    #[tokio::test]
    async fn a_listener_that_takes_nothing_is_hung_up_on() {
        let (events, cut) = (Events::default(), Arc::<Notify>::default());
        let reply = events.listen(HeaderMap::new(), Arc::clone(&cut));
        for _ in 0..LATE_MAX {
            events.tell(&Bytes::from_static(b"x"), |_| true);
        }
        assert!(events.is_heard());
        events.tell(&Bytes::from_static(b"x"), |_| true);
        assert!(!events.is_heard());
        cut.notified().await;
        drop(reply);
    }
}
