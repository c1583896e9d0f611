//! Connections that wake themselves.
//!
//! hyper's task wakes itself with every request that has a body: who takes a part of it tells who would read the next, which is the same
//! task. The runtime would put the task back into its queue and wake another thread to look for work there, which costs more than to ask
//! the task again.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// How often a future that wakes itself is asked again before others have their turn.
const AGAIN_MAX: usize = 4;

/// A future that is asked again at once where it woke itself while it was asked.
pub(crate) struct Wakeful<F> {
    inner: F,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    /// Whether the future is being asked, so that nobody else need be told.
    heard: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.heard.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl<F> Wakeful<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self { inner, bell: Arc::default() }
    }
}

impl<F: Future + Unpin> Future for Wakeful<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { inner, bell } = &mut *self;
        bell.task.register(context.waker());
        let waker = Waker::from(Arc::clone(bell));
        for _ in 0..AGAIN_MAX {
            bell.heard.store(true, Ordering::SeqCst);
            bell.rung.swap(false, Ordering::SeqCst);
            if let Poll::Ready(done) = Pin::new(&mut *inner).poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(done);
            }
            // In this order: who rings later finds that nobody hears, and who rang earlier is found here.
            bell.heard.store(false, Ordering::SeqCst);
            if !bell.rung.load(Ordering::SeqCst) {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Asks once a future that wakes itself this often before it is done. Returns how often it was asked, and how often it woke its
    /// task.
    fn ask(wakes: usize) -> (usize, usize) {
        let (counter, mut asked) = (Arc::new(Counter::default()), 0);
        let mut future = Wakeful::new(poll_fn(|context| {
            asked += 1;
            if asked > wakes {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        let _ = Pin::new(&mut future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(&counter))));
        drop(future);
        (asked, counter.0.load(Ordering::SeqCst))
    }

    #[test]
    fn who_wakes_itself_is_asked_again_and_others_have_their_turn() {
        assert_eq!(ask(0), (1, 0));
        assert_eq!(ask(2), (3, 0));
        assert_eq!(ask(100), (AGAIN_MAX, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sending = tokio::task::spawn_blocking(move || {
            for number in 0..20_000 {
                sender.blocking_send(number).unwrap();
            }
        });
        let mut received = 0;
        let receiving = async {
            while receiver.recv().await.is_some() {
                received += 1;
            }
        };
        let receiving = tokio::time::timeout(std::time::Duration::from_secs(60), Wakeful::new(Box::pin(receiving)));
        receiving.await.unwrap();
        sending.await.unwrap();
        assert_eq!(received, 20_000);
    }
}
