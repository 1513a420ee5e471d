//! Placeholder: the daemon is made elsewhere.

use std::fmt;

use crate::config::Config;

/// Why serving ended.
#[derive(Debug)]
pub struct ServeError;

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not built yet")
    }
}

/// Serves until told to stop.
///
/// # Errors
///
/// Always.
pub fn serve(_config: Config) -> Result<(), ServeError> {
    Err(ServeError)
}
