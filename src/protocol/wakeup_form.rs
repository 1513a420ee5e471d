//! What an operator's wake-up proxy is asked, in the form of Telefonica's push server
//! (PROTOCOL.md part 2, 1.6).

use super::form;
use crate::model::wakeup::Wakeup;

/// `ip`, `port`, `protocol`, and `mcc`, `mnc`, `netid` of a user agent on a mobile network.
pub fn write(wakeup: &Wakeup) -> String {
    let ip = wakeup.address.ip().to_string();
    let port = wakeup.address.port().to_string();
    let mut fields = vec![("ip", &*ip), ("port", &*port), ("protocol", "udp")];
    if let Some(network) = &wakeup.network {
        fields.push(("mcc", &network.country));
        fields.push(("mnc", &network.network));
        fields.push(("netid", &network.part));
    }
    form::write(&fields)
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
