//! What is said to the engine: forms that it knows, filled with what it has said itself, with a few fixed
//! things, or with any bytes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use arbitrary::Unstructured;
use edgepush::model::ids::ChannelId;
use edgepush::protocol::http::{BaseUrl, Request, Response, Scheme, Upgrade};
use edgepush::protocol::push_request::{Body, PushHeaders};
use serde_json::{Value, json};

/// Things heard that are remembered, of each kind.
const REMEMBERED_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Words {
    uaids: Vec<String>,
    /// Paths that may be posted to.
    endpoints: Vec<String>,
    /// Of notifications, with their channels.
    versions: Vec<(Value, Value)>,
    secrets: Vec<String>,
    /// Paths of accepted messages.
    messages: Vec<String>,
}

/// The first of those below.
pub(super) const CHANNEL: &str = "00000000-0000-0000-0000-000000000000";

/// One of few, so that the same comes again.
pub(super) fn channel(u: &mut Unstructured<'_>) -> arbitrary::Result<ChannelId> {
    Ok(ChannelId::from_bytes([u.int_in_range(0..=3)?; 16]))
}

fn remember<T>(list: &mut Vec<T>, what: T) {
    if list.len() == REMEMBERED_MAX {
        list.remove(0);
    }
    list.push(what);
}

fn one_of<T: Clone>(list: &[T], u: &mut Unstructured<'_>) -> arbitrary::Result<Option<T>> {
    if list.is_empty() {
        return Ok(None);
    }
    Ok(Some(u.choose(list)?.clone()))
}

fn path(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    Some(rest[rest.find('/')?..].to_owned())
}

impl Words {
    /// The engine has said this on a websocket.
    pub(super) fn heard(&mut self, message: &Value) {
        let text = |name: &str| message[name].as_str().map(str::to_owned);
        if let Some(uaid) = text("uaid") {
            remember(&mut self.uaids, uaid);
        }
        if let Some(endpoint) = text("pushEndpoint").and_then(|url| path(&url)) {
            remember(&mut self.endpoints, endpoint);
        }
        for update in message["updates"]
            .as_array()
            .unwrap_or(&vec![message.clone()])
        {
            if !update["version"].is_null() {
                let version = (update["channelID"].clone(), update["version"].clone());
                remember(&mut self.versions, version);
            }
        }
    }

    /// The engine has answered this to a request.
    pub(super) fn answered(&mut self, response: &Response) {
        if let Some((_, location)) = response
            .headers
            .iter()
            .find(|(name, _)| *name == "Location")
        {
            self.messages.extend(path(location));
            self.messages.truncate(REMEMBERED_MAX);
        }
        let Ok(body) = serde_json::from_str::<Value>(&response.body) else {
            return;
        };
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        if let Some(endpoint) = text("endpoint").and_then(|url| path(&url)) {
            remember(&mut self.endpoints, endpoint);
        }
        if let (Some(uaid), Some(secret)) = (text("uaid"), text("secret")) {
            remember(&mut self.uaids, uaid);
            remember(&mut self.secrets, secret);
        }
    }

    /// A message of a user agent, one that has said hello or one that has not.
    pub(super) fn message(
        &self,
        greeted: bool,
        u: &mut Unstructured<'_>,
    ) -> arbitrary::Result<String> {
        let name = channel(u)?.uuid().hyphenated().to_string();
        let usual = if greeted { 5..=15 } else { 1..=4 };
        let choice = if u.ratio(1, 16)? { 0..=15 } else { usual };
        let message = match u.int_in_range(choice)? {
            0 => return Ok(u.arbitrary::<&str>()?.to_owned()),
            1 | 2 => {
                let mut hello = json!({"messageType": "hello", "use_webpush": true});
                self.name(&mut hello, u)?;
                if u.arbitrary()? {
                    hello["broadcasts"] = json!({"a": "1", "b": u.arbitrary::<&str>()?});
                }
                hello
            }
            3 | 4 => {
                let mut hello = json!({"messageType": "hello", "channelIDs": [name]});
                self.name(&mut hello, u)?;
                if u.arbitrary()? {
                    hello["wakeup_hostport"] = json!({"ip": "192.168.1.5", "port": 2442});
                    hello["mobilenetwork"] = json!({"mcc": "214", "mnc": "07"});
                }
                hello
            }
            5 => json!({"messageType": "register", "channelID": name}),
            6 => {
                json!({"messageType": "register", "channelID": name, "key": u.arbitrary::<&str>()?})
            }
            7 => json!({"messageType": "unregister", "channelID": name}),
            8..=12 => {
                let mut updates = Vec::new();
                for _ in 0..u.int_in_range(0..=3)? {
                    let heard = one_of(&self.versions, u)?;
                    let (channel, version) = match heard.filter(|_| u.ratio(7, 8).unwrap_or(true)) {
                        Some(heard) => heard,
                        None => (name.clone().into(), u.arbitrary::<u32>()?.into()),
                    };
                    let code = u.int_in_range(99..=103)?;
                    updates.push(json!({"channelID": channel, "version": version, "code": code}));
                }
                json!({"messageType": "ack", "updates": updates})
            }
            13 if u.arbitrary()? => json!({"messageType": "nack", "version": "v", "code": 301}),
            13 => {
                let min = *u.choose(&["very-low", "low", "normal", "high", "none"])?;
                json!({"messageType": "urgency", "min": min})
            }
            14 => {
                json!({"messageType": "broadcast_subscribe", "broadcasts": {u.arbitrary::<&str>()?: "1"}})
            }
            _ => json!({}),
        };
        Ok(message.to_string())
    }

    fn name(&self, hello: &mut Value, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
        match u.int_in_range(0..=4)? {
            0 => {}
            1 => hello["uaid"] = "".into(),
            2 => hello["uaid"] = u.arbitrary::<&str>()?.into(),
            _ => {
                if let Some(uaid) = one_of(&self.uaids, u)? {
                    hello["uaid"] = uaid.into();
                }
            }
        }
        Ok(())
    }

    /// A request of anybody.
    pub(super) fn request(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<Request> {
        let methods = ["POST", "PUT", "GET", "DELETE", "HEAD", "OPTIONS"];
        let method = if u.ratio(3, 4)? {
            "POST"
        } else {
            *u.choose(&methods)?
        };
        let mut path = match u.int_in_range(0..=7)? {
            0 => format!("/{}", u.arbitrary::<&str>()?),
            1 => one_of(&self.messages, u)?.unwrap_or_default(),
            2 => "/_matrix/push/v1/notify".to_owned(),
            3 => self.registration_path(u)?,
            _ => one_of(&self.endpoints, u)?.unwrap_or_else(|| "/wpush/v1/none".to_owned()),
        };
        if u.ratio(1, 20)? {
            path.push(char::from(u.int_in_range(33..=126)?));
        }
        let header = |u: &mut Unstructured<'_>, usual: &str| -> arbitrary::Result<Option<String>> {
            Ok(match u.int_in_range(0..=31)? {
                0 => None,
                1 => Some(u.arbitrary::<&str>()?.to_owned()),
                _ => Some(usual.to_owned()),
            })
        };
        let rarely = |u: &mut Unstructured<'_>, usual: &str| -> arbitrary::Result<Option<String>> {
            if u.ratio(3, 4)? {
                Ok(None)
            } else {
                header(u, usual)
            }
        };
        let secret = one_of(&self.secrets, u)?;
        let authorization = secret.map_or("vapid t=a.b.c, k=AAAA".to_owned(), |s| {
            format!("Bearer {s}")
        });
        let ttl = ["0", "60", "99999999999"];
        let ttl = *u.choose(&ttl)?;
        let urgency = *u.choose(&["very-low", "low", "high"])?;
        let headers = PushHeaders {
            authorization: rarely(u, &authorization)?,
            content_encoding: header(u, "aes128gcm")?,
            content_type: rarely(u, "application/x-www-form-urlencoded")?,
            crypto_key: rarely(u, "p256ecdsa=AAAA")?,
            encryption: rarely(u, "salt=AAAA")?,
            topic: rarely(u, "topic")?,
            ttl: header(u, ttl)?,
            urgency: rarely(u, urgency)?,
        };
        Ok(Request {
            peer: IpAddr::V4(Ipv4Addr::new(192, 168, 1, u.arbitrary()?)),
            method: method.to_owned(),
            path,
            query: u.ratio(1, 10)?.then(|| "version=7".to_owned()),
            base_url: BaseUrl::of_host(Scheme::Http, "pi"),
            upgrade: match u.int_in_range(0..=15)? {
                0 => Upgrade::Websocket,
                1 => Upgrade::BadWebsocket,
                _ => Upgrade::None,
            },
            headers,
            body: self.body(u)?,
            random: Some(u.arbitrary()?),
        })
    }

    fn registration_path(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<String> {
        let uaid = one_of(&self.uaids, u)?.unwrap_or_default();
        let channel = channel(u)?.uuid();
        Ok(match u.int_in_range(0..=3)? {
            0 => "/v1/webpush/app/registration".to_owned(),
            1 => format!("/v1/webpush/app/registration/{uaid}"),
            2 => format!("/v1/webpush/app/registration/{uaid}/subscription"),
            _ => format!("/v1/webpush/app/registration/{uaid}/subscription/{channel}"),
        })
    }

    fn body(&self, u: &mut Unstructured<'_>) -> arbitrary::Result<Body> {
        Ok(match u.int_in_range(0..=8)? {
            0 => Body::TooLarge,
            1 => Body::Incomplete,
            2 => Body::Whole(Vec::new()),
            3 => Body::Whole(b"version=9&data=x".to_vec()),
            4 => Body::Whole(vec![b'x'; usize::from(u.arbitrary::<u16>()?)]),
            5 => {
                let mut devices = Vec::new();
                for _ in 0..u.int_in_range(0..=3)? {
                    let endpoint = one_of(&self.endpoints, u)?.unwrap_or_default();
                    devices.push(json!({"pushkey": format!("http://pi{endpoint}")}));
                }
                Body::Whole(
                    json!({"notification": {"devices": devices}})
                        .to_string()
                        .into_bytes(),
                )
            }
            6 => Body::Whole(b"{}".to_vec()),
            _ => Body::Whole(u.arbitrary::<&[u8]>()?.to_vec()),
        })
    }

    pub(super) fn broadcasts(
        &self,
        u: &mut Unstructured<'_>,
    ) -> arbitrary::Result<BTreeMap<String, String>> {
        let mut list = BTreeMap::new();
        for id in ["a", "b"] {
            list.insert(id.to_owned(), u.arbitrary::<u8>()?.to_string());
        }
        if u.arbitrary()? {
            list.insert(u.arbitrary::<&str>()?.to_owned(), "1".to_owned());
        }
        Ok(list)
    }
}
