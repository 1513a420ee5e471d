//! Work that waits for a disk, beside the event loop.

use std::io;
use std::thread;

/// Does `work` on a thread of its own and waits for what comes of it.
///
/// For what happens seldom, such as reading a file again: each call starts a thread.
///
/// # Errors
///
/// When the system starts no more threads, or the work has panicked.
pub(super) async fn aside<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (result, done) = smol::channel::bounded(1);
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The other end is dropped only when nobody waits any more.
            let _ = result.try_send(work());
        })?;
    done.recv().await.map_err(io::Error::other)
}
