//! Places where a test makes this process die or wait: the only way to hit one step of a publish for certain. Debug builds alone have
//! them; in a release build the call is empty.
//!
//! `RAFTWERK_FAIL_AT` holds wishes separated by commas: `kill:POINT:FILE` ends the process at that point without a word, `pause:POINT:FILE`
//! holds it there until `FILE.go` exists. Several processes may have the same wish: the one that creates `FILE` has it fulfilled.

/// Named after what has just been done.
#[cfg(debug_assertions)]
pub(crate) fn reach(point: &str) {
    let Ok(wishes) = std::env::var("RAFTWERK_FAIL_AT") else { return };
    for wish in wishes.split(',') {
        let mut words = wish.splitn(3, ':');
        let (Some(act), Some(at), Some(file)) = (words.next(), words.next(), words.next()) else { continue };
        if at != point || std::fs::OpenOptions::new().write(true).create_new(true).open(file).is_err() {
            continue;
        }
        tracing::warn!(point, act, "a fail point is reached");
        match act {
            "kill" => std::process::abort(),
            _ => {
                while !std::path::Path::new(&format!("{file}.go")).exists() {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
            }
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn reach(_point: &str) {}
