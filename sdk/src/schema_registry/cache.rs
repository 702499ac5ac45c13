//! A bounded cache in which many look-ups of one key are one request.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::error::{RegistryError, RegistryErrorKind};

type Answer<V> = Result<V, RegistryError>;

/// How long answers are believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    /// Of a value; `None`: for ever.
    pub(super) value: Option<Duration>,
    /// Of "there is none".
    pub(super) not_found: Duration,
    /// How old a value may be that is still given while the registry fails.
    pub(super) max_stale: Duration,
}

#[derive(Debug)]
pub(super) struct Cache<K, V> {
    // Held for map operations only, never across an await.
    slots: Arc<Mutex<HashMap<K, Slot<V>>>>,
    lifetimes: Lifetimes,
    capacity: usize,
    clock: Clock,
}

/// What time it is; tests set it forward.
#[derive(Clone, Debug, Default)]
struct Clock {
    #[cfg(test)]
    ahead: Arc<Mutex<Duration>>,
}

impl Clock {
    fn now(&self) -> Instant {
        let now = Instant::now();
        #[cfg(test)]
        let now = now + *lock(&self.ahead);
        now
    }
}

#[derive(Debug)]
struct Slot<V> {
    kept: Option<Kept<V>>,
    /// The request that is under way, if one is.
    flight: Option<watch::Receiver<Option<Answer<V>>>>,
    used: Instant,
}

#[derive(Debug)]
struct Kept<V> {
    /// An error is always `NotFound`.
    answer: Answer<V>,
    at: Instant,
    /// When to ask again; `None`: never.
    until: Option<Instant>,
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(lifetimes: Lifetimes, capacity: usize) -> Self {
        Self { slots: Arc::default(), lifetimes, capacity, clock: Clock::default() }
    }

    /// The answer for `key`: kept, or of the request under way, or of a new one.
    ///
    /// The request runs in a task of its own, so that it goes on for the others if whoever asked first
    /// gives up.
    pub(super) async fn get<F>(&self, key: K, fetch: impl FnOnce() -> F) -> Answer<V>
    where
        F: Future<Output = Answer<V>> + Send + 'static,
    {
        let mut flight = {
            let mut slots = lock(&self.slots);
            let now = self.clock.now();
            match slots.get_mut(&key) {
                Some(slot) => {
                    slot.used = now;
                    if let Some(kept) = &slot.kept
                        && kept.until.is_none_or(|until| now < until)
                    {
                        return kept.answer.clone();
                    }
                }
                None => {
                    self.make_room(&mut slots);
                    slots.insert(key.clone(), Slot { kept: None, flight: None, used: now });
                }
            }
            let slot = slots.get_mut(&key).expect("found or inserted above, under the same lock");
            match &slot.flight {
                Some(flight) => flight.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    slot.flight = Some(receiver.clone());
                    let landing = Landing {
                        slots: self.slots.clone(),
                        key,
                        lifetimes: self.lifetimes,
                        clock: self.clock.clone(),
                    };
                    let request = fetch();
                    tokio::spawn(async move {
                        let answer = request.await;
                        sender.send_replace(Some(landing.land(answer)));
                    });
                    receiver
                }
            }
        };
        let answer = flight.wait_for(Option::is_some).await;
        match answer.as_deref() {
            Ok(Some(answer)) => answer.clone(),
            _ => Err(RegistryError::new(RegistryErrorKind::Interrupted, "the look-up was cut short")),
        }
    }

    /// Forgets what is kept about a key. A request under way is not stopped, and its answer is kept.
    pub(super) fn forget(&self, key: &K) {
        if let Some(slot) = lock(&self.slots).get_mut(key) {
            slot.kept = None;
        }
    }

    /// Forgets the longest unused slot without a request under way, if the cache is full. When every slot
    /// has one, the cache grows by what is asked for at the same time.
    fn make_room(&self, slots: &mut HashMap<K, Slot<V>>) {
        while slots.len() >= self.capacity {
            let oldest = slots
                .iter()
                .filter(|(_, slot)| slot.flight.is_none())
                .min_by_key(|(_, slot)| slot.used)
                .map(|(key, _)| key.clone());
            match oldest {
                Some(key) => slots.remove(&key),
                None => return,
            };
        }
    }

    #[cfg(test)]
    fn advance(&self, time: Duration) {
        *lock(&self.clock.ahead) += time;
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        lock(&self.slots).len()
    }
}

/// Ends a flight: keeps its answer, and frees the slot even if the request panicked or was aborted.
struct Landing<K: Hash + Eq, V> {
    slots: Arc<Mutex<HashMap<K, Slot<V>>>>,
    key: K,
    lifetimes: Lifetimes,
    clock: Clock,
}

impl<K: Hash + Eq, V: Clone> Landing<K, V> {
    /// Keeps what may be kept, and says what the waiters get.
    fn land(&self, answer: Answer<V>) -> Answer<V> {
        let mut slots = lock(&self.slots);
        let Some(slot) = slots.get_mut(&self.key) else { return answer };
        let now = self.clock.now();
        match &answer {
            Ok(_) => {
                let until = self.lifetimes.value.map(|ttl| now + ttl);
                slot.kept = Some(Kept { answer: answer.clone(), at: now, until });
            }
            Err(e) if e.kind() == RegistryErrorKind::NotFound => {
                slot.kept = Some(Kept {
                    answer: answer.clone(),
                    at: now,
                    until: Some(now + self.lifetimes.not_found),
                });
            }
            Err(e) => {
                if let Some(kept) = &mut slot.kept
                    && kept.answer.is_ok()
                    && e.is_retryable()
                    && now.duration_since(kept.at) < self.lifetimes.max_stale
                {
                    tracing::warn!(error = %e, "the schema registry fails; going on with what it said before");
                    // Not every look-up in the meantime shall wait for all retries.
                    kept.until = Some(now + self.lifetimes.not_found);
                    return kept.answer.clone();
                }
                slot.kept = None;
            }
        }
        answer
    }
}

impl<K: Hash + Eq, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get_mut(&self.key) {
            slot.flight = None;
            if slot.kept.is_none() {
                slots.remove(&self.key);
            }
        }
    }
}

/// A panic while the lock is held cannot leave the map half changed: every change is one operation.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn cache(capacity: usize) -> Cache<u32, u32> {
        let lifetimes = Lifetimes {
            value: Some(Duration::from_secs(10)),
            not_found: Duration::from_secs(2),
            max_stale: Duration::from_secs(60),
        };
        Cache::new(lifetimes, capacity)
    }

    fn failure(kind: RegistryErrorKind) -> Answer<u32> {
        Err(RegistryError::new(kind, "x"))
    }

    async fn ask(cache: &Cache<u32, u32>, key: u32, answer: Answer<u32>) -> (Answer<u32>, bool) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let got = cache
            .get(key, move || async move {
                count.fetch_add(1, Ordering::Relaxed);
                answer
            })
            .await;
        (got, asked.load(Ordering::Relaxed) > 0)
    }

    #[tokio::test]
    async fn values_are_believed_for_their_time_and_used_when_stale_only_while_the_registry_fails() {
        let cache = cache(10);
        assert!(matches!(ask(&cache, 1, Ok(7)).await, (Ok(7), true)));
        assert!(matches!(ask(&cache, 1, Ok(8)).await, (Ok(7), false)));
        cache.advance(Duration::from_secs(11));
        assert!(matches!(ask(&cache, 1, failure(RegistryErrorKind::ServerFailure)).await, (Ok(7), true)));
        // Not asked again at once.
        assert!(matches!(ask(&cache, 1, Ok(8)).await, (Ok(7), false)));
        cache.advance(Duration::from_secs(3));
        let (answer, _) = ask(&cache, 1, failure(RegistryErrorKind::Unauthenticated)).await;
        assert_eq!(answer.unwrap_err().kind(), RegistryErrorKind::Unauthenticated);
        assert!(matches!(ask(&cache, 1, Ok(9)).await, (Ok(9), true)));
        cache.advance(Duration::from_secs(61));
        assert!(ask(&cache, 1, failure(RegistryErrorKind::Unreachable)).await.0.is_err());
    }

    #[tokio::test]
    async fn not_found_is_kept_shortly_and_other_errors_never() {
        let cache = cache(10);
        assert!(ask(&cache, 1, failure(RegistryErrorKind::NotFound)).await.1);
        assert!(!ask(&cache, 1, Ok(1)).await.1);
        cache.advance(Duration::from_secs(3));
        assert!(matches!(ask(&cache, 1, Ok(1)).await, (Ok(1), true)));
        for kind in [
            RegistryErrorKind::Unauthenticated,
            RegistryErrorKind::RateLimited,
            RegistryErrorKind::ServerFailure,
        ] {
            assert!(ask(&cache, 2, failure(kind)).await.1, "{kind:?}");
        }
        assert_eq!(cache.len(), 1, "a failure leaves no slot");
    }

    #[tokio::test]
    async fn a_full_cache_forgets_the_longest_unused() {
        let cache = cache(3);
        for key in 1..=3 {
            ask(&cache, key, Ok(key)).await.0.unwrap();
            cache.advance(Duration::from_millis(1));
        }
        assert!(!ask(&cache, 1, Ok(0)).await.1);
        cache.advance(Duration::from_millis(1));
        ask(&cache, 4, Ok(4)).await.0.unwrap();
        assert_eq!(cache.len(), 3);
        assert!(!ask(&cache, 1, Ok(0)).await.1);
        assert!(ask(&cache, 2, Ok(0)).await.1);
    }

    #[tokio::test]
    async fn a_request_that_panics_or_whose_first_asker_left_does_not_block_the_key() {
        let cache = Arc::new(cache(3));
        let answer = cache.get(1, || async { panic!("in a request") }).await;
        assert_eq!(answer.unwrap_err().kind(), RegistryErrorKind::Interrupted);
        assert!(matches!(ask(&cache, 1, Ok(1)).await, (Ok(1), true)));

        let (go, gate) = tokio::sync::oneshot::channel::<()>();
        let first = tokio::spawn({
            let cache = cache.clone();
            async move {
                cache
                    .get(2, || async move {
                        gate.await.unwrap();
                        Ok(2)
                    })
                    .await
            }
        });
        while cache.len() < 2 {
            tokio::task::yield_now().await;
        }
        first.abort();
        let _ = first.await;
        let second = ask(&cache, 2, Ok(99));
        go.send(()).unwrap();
        assert!(matches!(second.await, (Ok(2), false)));
    }
}
