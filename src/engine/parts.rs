//! Requests that come to several push messages, and what is answered when the last of them has its
//! answer: the Matrix push gateway's.

use std::collections::HashMap;

use super::RequestId;
use crate::protocol::http::Response;
use crate::protocol::matrix;
use crate::protocol::problem::Problem;

/// The requests whose parts are not all answered.
#[derive(Debug, Default)]
pub(super) struct Wholes {
    open: HashMap<RequestId, Whole>,
    parts_named: u64,
}

#[derive(Debug)]
struct Whole {
    /// Parts that have no answer.
    left: usize,
    rejected: Vec<Box<str>>,
    /// One of them could not be taken, and may be later.
    is_to_be_repeated: bool,
}

/// One push message of such a request.
#[derive(Debug)]
pub(super) struct Part {
    /// The request.
    pub(super) whole: RequestId,
    /// What it names the device by.
    pub(super) pushkey: Box<str>,
}

impl Wholes {
    pub(super) fn open(&mut self, request: RequestId, parts: usize) {
        let whole = Whole {
            left: parts,
            rejected: Vec::new(),
            is_to_be_repeated: false,
        };
        self.open.insert(request, whole);
    }

    /// A name for a part. The caller names requests from 1 on and gets nowhere near.
    pub(super) const fn name_part(&mut self) -> RequestId {
        let name = u64::MAX.wrapping_sub(self.parts_named);
        self.parts_named = self.parts_named.wrapping_add(1);
        RequestId(name)
    }

    /// A part has its answer: `None` if its message was accepted. Returns the answer to the whole when
    /// it was the last one.
    ///
    /// Whatever passes by itself has the homeserver send all of it again, since it cannot be told of
    /// one device alone; a second time for some is better than never for others.
    pub(super) fn end(
        &mut self,
        part: Part,
        problem: Option<Problem>,
    ) -> Option<(RequestId, Response)> {
        let Part { whole, pushkey } = part;
        let state = self.open.get_mut(&whole)?;
        match problem {
            None => {}
            Some(problem) if problem.retry_after_secs().is_some() => {
                state.is_to_be_repeated = true;
            }
            Some(_) => state.rejected.push(pushkey),
        }
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return None;
        }
        let state = self.open.remove(&whole)?;
        let response = if state.is_to_be_repeated {
            Problem::NotifyUndelivered.into()
        } else {
            matrix::rejected(&state.rejected)
        };
        Some((whole, response))
    }
}
