//! The signals that ask a process to end.

/// Returns when SIGINT, SIGTERM or SIGHUP arrives, with its name.
#[cfg(unix)]
pub async fn stop() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let hangup = async {
        // Asked before a handler is set, which would take the place of `nohup`'s wish.
        if hangup_is_ignored() {
            return std::future::pending().await;
        }
        match signal(SignalKind::hangup()) {
            Ok(mut hangup) => hangup.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup => "SIGHUP",
        },
        // Without handlers the default action ends the process, which is what is asked for.
        _ => std::future::pending().await,
    }
}

/// Whether this process was started with SIGHUP ignored, as `nohup` does: it shall outlive its terminal.
#[cfg(unix)]
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // Signal 1 is the lowest bit.
    ignored.is_some_and(|mask| mask & 1 != 0)
}

#[cfg(not(unix))]
pub async fn stop() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "Ctrl-C",
        Err(_) => std::future::pending().await,
    }
}

/// The same, or the end of standard input when `stdin_too`: a parent that dies without a word takes its children with it.
pub async fn stop_or_stdin(stdin_too: bool) -> &'static str {
    if !stdin_too {
        return stop().await;
    }
    // A thread of its own: a blocking task of the runtime would hold up its shutdown until somebody types something.
    let (closed, on_closed) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(());
    });
    tokio::select! {
        signal = stop() => signal,
        _ = on_closed => "the parent process is gone",
    }
}
