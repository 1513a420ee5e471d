//! What an operator's wake-up proxy is asked, in the form of Telefonica's push server
//! (PROTOCOL.md part 2, 1.6).

use std::fmt::Write;

use crate::model::wakeup::Wakeup;

/// What the form is called in `Content-Type`.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// `ip`, `port`, `protocol`, and `mcc`, `mnc`, `netid` of a user agent on a mobile network.
pub fn write(wakeup: &Wakeup) -> String {
    let mut form = String::new();
    let mut field = |name: &str, value: &str| {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
                form.push(char::from(byte));
            } else {
                write!(form, "%{byte:02X}").expect("a string can be written to");
            }
        }
    };
    field("ip", &wakeup.address.ip().to_string());
    field("port", &wakeup.address.port().to_string());
    field("protocol", "udp");
    if let Some(network) = &wakeup.network {
        field("mcc", &network.country);
        field("mnc", &network.network);
        field("netid", &network.part);
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wakeup::MobileNetwork;

    #[test]
    fn form_has_the_network_only_where_there_is_one() {
        let mut wakeup = Wakeup {
            address: "[fe80::1]:2442".parse().unwrap(),
            network: None,
        };
        assert_eq!(write(&wakeup), "ip=fe80%3A%3A1&port=2442&protocol=udp");
        wakeup.network = Some(MobileNetwork {
            country: "214".into(),
            network: "07".into(),
            part: "a&b c".into(),
        });
        let network = "&mcc=214&mnc=07&netid=a%26b%20c";
        assert!(write(&wakeup).ends_with(network), "{}", write(&wakeup));
    }
}
