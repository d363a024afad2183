//! The one place where panics of foreign code are caught.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What is kept of a panic's message, characters.
const REASON_CHARS_MAX: usize = 200;

/// Runs `call`. `Err` holds the message of the panic it ended in, and what the call had borrowed may then be
/// in any state.
pub(crate) fn guard<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        message.unwrap_or("a panic without a message").chars().take(REASON_CHARS_MAX).collect()
    })
}
