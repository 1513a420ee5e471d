//! A push gateway for small ARM boards: websockets and HTTP in, SQLite below.
//!
//! # Layers
//!
//! A layer may use the layers named in its row and itself, nothing else. `tests/tidy.rs` holds the
//! code to it.
//!
//! | layer      | uses                                     | owns                                      | never touches |
//! |------------|------------------------------------------|-------------------------------------------|---------------|
//! | `model`    | nothing                                  | the words of the field and their bounds   | wire text, clocks, disks |
//! | `protocol` | `model`                                  | wire text to `model` and back, tokens     | state, time, sockets |
//! | `engine`   | `model`, `protocol`                      | what must happen next                     | sockets, SQL, clocks, threads |
//! | `storage`  | `model`                                  | how it is kept                            | when a batch ends, sockets |
//! | `config`   | `model`                                  | the configuration: text, checks, defaults | files, sockets |
//! | `io`       | `model`, `protocol`, `engine`, `storage` | sockets, clocks, threads, randomness      | decisions |
//! | `daemon`   | all of the above                         | how they are wired                        | what they do |
//! | `cli`      | all of the above                         | the commands                              | |

// A test may panic and may add; the daemon may do neither.
#![cfg_attr(test, allow(clippy::arithmetic_side_effects, clippy::unwrap_used))]

pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod io;
pub mod model;
pub mod protocol;
pub mod storage;
