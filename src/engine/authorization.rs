//! Who may post, and which tokens need not be verified again.

use super::Engine;
use super::counters::Counters;
use crate::model::time::Now;
use crate::protocol::http::Request;
use crate::protocol::keyring::Endpoint;
use crate::protocol::origin::Audience;
use crate::protocol::problem::Problem;
use crate::protocol::push_request;
use crate::protocol::vapid::Credentials;
use crate::protocol::vapid_token::{Token, TokenDigest};

/// Most verified tokens that are remembered: one for each application server that a household or a
/// club hears from within a day, several times over, in about 10 KiB.
const VERIFIED_TOKENS_MAX: usize = 256;
const _: () = assert!(VERIFIED_TOKENS_MAX * size_of::<Verified>() <= 16 << 10);

impl Engine {
    /// Whether this application server may post to the endpoint. A token is looked at wherever there
    /// is one, also for an endpoint that is open to anybody.
    ///
    /// What a stranger can cost: one signature check for each request, and that only with an endpoint
    /// that was minted here and a token of the right shape. It is not spared for a token whose
    /// claims will be refused, or whose key is not the endpoint's, because the main service finds
    /// fault with the signature first.
    pub(super) fn authorize(
        &mut self,
        now: Now,
        endpoint: &Endpoint,
        head: &Request,
    ) -> Result<(), Problem> {
        let Some(authorization) = &head.headers.authorization else {
            return push_request::check_key(endpoint, None);
        };
        let crypto_key = head.headers.crypto_key.as_deref();
        let allowed = Credentials::read(authorization, crypto_key).and_then(|credentials| {
            self.verify(now, &credentials, head)?;
            push_request::check_key(endpoint, Some(&credentials.key))
        });
        if allowed.is_err() {
            Counters::add(&mut self.desk.out.counters.vapid_refused);
        }
        allowed
    }

    /// Verifies a token, its signature only if that was not done before: expiry and audience belong
    /// to the request.
    fn verify(
        &mut self,
        now: Now,
        credentials: &Credentials,
        head: &Request,
    ) -> Result<(), Problem> {
        let audience = Audience {
            public_url: self.desk.public_url.as_ref(),
            reached_by: head.base_url.as_ref(),
        };
        let token = Token::read(&credentials.token)?;
        let digest = TokenDigest::of(credentials);
        let remembered = self.verified.recall(digest);
        if !remembered {
            token.check_signature(&credentials.key)?;
        }
        token.check_claims(now, audience)?;
        let counters = &mut self.desk.out.counters;
        if remembered {
            Counters::add(&mut counters.vapid_remembered);
        } else {
            self.verified.remember(digest);
            Counters::add(&mut counters.vapid_verified);
        }
        Ok(())
    }
}

/// The tokens that were verified, at most [`VERIFIED_TOKENS_MAX`]. The one that was not used for longest
/// makes room, which an expired one becomes by itself.
#[derive(Debug, Default)]
pub(super) struct VerifiedTokens {
    /// Few enough to be looked through: that costs less than the digest did.
    tokens: Vec<Verified>,
    uses: u64,
}

#[derive(Debug)]
struct Verified {
    digest: TokenDigest,
    last_use: u64,
}

impl VerifiedTokens {
    /// Whether this token was verified and is remembered; that counts as a use of it.
    fn recall(&mut self, digest: TokenDigest) -> bool {
        let last_use = self.next_use();
        let known = self.tokens.iter_mut().find(|known| known.digest == digest);
        known.map(|known| known.last_use = last_use).is_some()
    }

    /// Remembers a token that is not known yet.
    fn remember(&mut self, digest: TokenDigest) {
        let verified = Verified {
            digest,
            last_use: self.next_use(),
        };
        if self.tokens.len() < VERIFIED_TOKENS_MAX {
            return self.tokens.push(verified);
        }
        let oldest = self.tokens.iter_mut().min_by_key(|known| known.last_use);
        if let Some(oldest) = oldest {
            *oldest = verified;
        }
    }

    const fn next_use(&mut self) -> u64 {
        self.uses = self.uses.saturating_add(1);
        self.uses
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Out, Table};
    use super::*;
    use crate::protocol::push_request::PushHeaders;
    use crate::protocol::signer::Signer;

    const NOW_SECS: u64 = 1_780_000_000;

    /// A table whose clock is right, and an endpoint that is open to anybody.
    fn table() -> (Table, String) {
        let mut table = Table::new();
        table.set_wall(NOW_SECS, true);
        let (session, _) = table.newcomer();
        let endpoint = table.register(session, 1);
        (table, endpoint)
    }

    fn post(table: &mut Table, endpoint: &str, authorization: &str) -> u16 {
        let headers = PushHeaders {
            ttl: Some("0".to_owned()),
            authorization: Some(authorization.to_owned()),
            ..PushHeaders::default()
        };
        let (request, outs) = table.request("POST", endpoint, headers);
        let status = outs.into_iter().find_map(|out| match out {
            Out::Answered(id, status) if id == request => Some(status),
            Out::Answered(..)
            | Out::Sent(..)
            | Out::Pinged(_)
            | Out::Paused(_)
            | Out::Resumed(_)
            | Out::Closed(..)
            | Out::Woken(_)
            | Out::AskedToWake(_)
            | Out::Up(..)
            | Out::Stopped => None,
        });
        status.unwrap()
    }

    fn counted(table: &Table) -> (u64, u64, u64) {
        let counters = table.snapshot().counters;
        (
            counters.vapid_verified,
            counters.vapid_remembered,
            counters.vapid_refused,
        )
    }

    #[test]
    fn signature_of_a_token_is_checked_once() {
        let (mut table, endpoint) = table();
        let authorization = Signer::new(1).authorization("http://pi", NOW_SECS + 60);
        for _ in 0..5 {
            assert_eq!(post(&mut table, &endpoint, &authorization), 201);
        }
        assert_eq!(counted(&table), (1, 4, 0));
    }

    #[test]
    fn remembered_token_is_refused_once_it_has_expired() {
        let (mut table, endpoint) = table();
        let authorization = Signer::new(1).authorization("http://pi", NOW_SECS);
        assert_eq!(post(&mut table, &endpoint, &authorization), 201);
        table.set_wall(NOW_SECS + 60, true);
        assert_eq!(post(&mut table, &endpoint, &authorization), 201);
        table.set_wall(NOW_SECS + 61, true);
        assert_eq!(post(&mut table, &endpoint, &authorization), 401);
        assert_eq!(counted(&table), (1, 1, 1));
        // The clock turns out to be wrong.
        table.set_wall(0, false);
        assert_eq!(post(&mut table, &endpoint, &authorization), 201);
    }

    #[test]
    fn remembered_token_is_refused_where_it_was_not_meant_for() {
        let (mut table, endpoint) = table();
        let authorization = Signer::new(1).authorization("http://pi", NOW_SECS);
        assert_eq!(post(&mut table, &endpoint, &authorization), 201);
        table.reached_by = "elsewhere";
        assert_eq!(post(&mut table, &endpoint, &authorization), 401);
    }

    #[test]
    fn remembered_token_with_another_key_is_another_token() {
        let (mut table, endpoint) = table();
        let token = Signer::new(1).token("http://pi", NOW_SECS);
        let (right, wrong) = (
            Signer::new(1).present(&token),
            Signer::new(2).present(&token),
        );
        assert_eq!(post(&mut table, &endpoint, &right), 201);
        assert_eq!(post(&mut table, &endpoint, &wrong), 401);
        assert_eq!(counted(&table), (1, 0, 1));
    }

    #[test]
    fn refused_token_is_not_remembered() {
        let (mut table, endpoint) = table();
        for authorization in [
            Signer::new(1).authorization("http://elsewhere", NOW_SECS),
            Signer::new(2).present(&Signer::new(1).token("http://pi", NOW_SECS)),
            "vapid t=a.b.c,k=AAAA".to_owned(),
            "Basic x".to_owned(),
        ] {
            for _ in 0..2 {
                assert_eq!(post(&mut table, &endpoint, &authorization), 401);
            }
        }
        assert_eq!(counted(&table), (0, 0, 8));
        assert_eq!(table.engine.verified.tokens.len(), 0);
    }

    fn digest(number: usize) -> TokenDigest {
        TokenDigest::of(&Credentials {
            token: number.to_string(),
            key: vec![],
        })
    }

    #[test]
    fn as_many_tokens_are_remembered_as_there_is_room_for() {
        let mut verified = VerifiedTokens::default();
        for number in 0..VERIFIED_TOKENS_MAX {
            assert!(!verified.recall(digest(number)));
            verified.remember(digest(number));
        }
        assert!(verified.recall(digest(0)), "the first, which is used again");
        verified.remember(digest(VERIFIED_TOKENS_MAX));
        assert_eq!(verified.tokens.len(), VERIFIED_TOKENS_MAX);
        for number in (0..=VERIFIED_TOKENS_MAX).filter(|number| *number != 1) {
            assert!(verified.recall(digest(number)), "{number}");
        }
        assert!(!verified.recall(digest(1)), "the one not used for longest");
    }
}
