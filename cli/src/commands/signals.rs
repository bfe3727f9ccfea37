//! The signals that ask a process to end.

/// Returns when SIGINT or SIGTERM arrives, with its name.
#[cfg(unix)]
pub async fn stop() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        },
        // Without handlers the default action ends the process, which is what is asked for.
        _ => std::future::pending().await,
    }
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
