//! Several addresses of which one will do: each is dialled a little after the one before, so that an address that drops packets costs that while
//! and not a whole time limit. RFC 8305 ("Happy Eyeballs") does the same for the addresses of one name.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinSet;

/// Before the next address is dialled too. As in RFC 8305: a peer that is there and not overloaded has finished its handshake by then, so that
/// nobody is dialled without need.
pub const HEAD_START: Duration = Duration::from_millis(250);

/// The dial that was first, and those that had failed before it; both by place in the order.
#[derive(Debug, PartialEq, Eq)]
pub struct Reached<T, E> {
    pub place: usize,
    pub value: T,
    pub failed: Vec<(usize, E)>,
}

/// Begins the dials in their order, each [`HEAD_START`] after the one before, or at once when one has failed while others are still under way. Ends
/// with the first that succeeds, or when all that were begun have failed: a refusal is quick, and how long to wait after it is the caller's to say.
/// What is under way by then is dropped.
pub async fn first_of<T, E, F>(dials: impl IntoIterator<Item = F>) -> Result<Reached<T, E>, Vec<(usize, E)>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut waiting = dials.into_iter().enumerate();
    let (mut under_way, mut failed) = (JoinSet::new(), Vec::new());
    loop {
        let begun = waiting.next().map(|(place, dial)| under_way.spawn(async move { (place, dial.await) })).is_some();
        let mut pause = pin!(tokio::time::sleep(HEAD_START));
        let ended = tokio::select! {
            biased;
            ended = under_way.join_next() => ended,
            // After the last one there is nobody left to begin.
            () = &mut pause, if begun => continue,
        };
        match ended {
            Some(Ok((place, Ok(value)))) => return Ok(Reached { place, value, failed }),
            Some(Ok((place, Err(error)))) => failed.push((place, error)),
            // A dial that panicked has said so by itself.
            Some(Err(_)) | None => {}
        }
        if under_way.is_empty() {
            return Err(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};

    type Ended = Result<Reached<char, &'static str>, Vec<(usize, &'static str)>>;
    type Dial = Pin<Box<dyn Future<Output = Result<char, &'static str>> + Send>>;

    /// What each of the dials does, in order: `-` is never answered, `x` is refused, anything else answers with itself. Says which were begun, too.
    async fn dial(what: &str) -> (Ended, String) {
        let begun: Arc<Mutex<String>> = Arc::default();
        let one = |what: char| -> Dial {
            let begun = begun.clone();
            Box::pin(async move {
                begun.lock().unwrap().push(what);
                match what {
                    '-' => std::future::pending().await,
                    'x' => Err("refused"),
                    other => Ok(other),
                }
            })
        };
        let ended = first_of(what.chars().map(one).collect::<Vec<_>>()).await;
        let begun = begun.lock().unwrap().clone();
        (ended, begun)
    }

    fn reached(place: usize, value: char, failed: &[(usize, &'static str)]) -> Ended {
        Ok(Reached { place, value, failed: failed.to_vec() })
    }

    #[tokio::test]
    async fn an_address_that_never_answers_does_not_hold_up_the_others() {
        assert_eq!(dial("-b").await, (reached(1, 'b', &[]), "-b".into()));
        assert_eq!(dial("--cd").await, (reached(2, 'c', &[]), "--c".into()));
    }

    #[tokio::test]
    async fn nobody_is_dialled_without_need() {
        assert_eq!(dial("ab").await, (reached(0, 'a', &[]), "a".into()));
        assert_eq!(dial("xb").await, (Err(vec![(0, "refused")]), "x".into()), "who was refused waits as he sees fit");
    }

    #[tokio::test]
    async fn a_refusal_does_not_end_the_search_while_another_is_under_way() {
        assert_eq!(dial("-xxd").await, (reached(3, 'd', &[(1, "refused"), (2, "refused")]), "-xxd".into()));
        assert_eq!(dial("").await, (Err(vec![]), String::new()));
    }

    #[tokio::test]
    async fn all_that_were_begun_fail_in_the_end() {
        let late = |what: &'static str| -> Dial {
            Box::pin(async move {
                tokio::time::sleep(HEAD_START * 3 / 2).await;
                Err(what)
            })
        };
        assert_eq!(first_of([late("a"), late("b")]).await, Err(vec![(0, "a"), (1, "b")]));
    }
}
