//! What is said to somebody who only asks whether the gateway is well: the main service's forms
//! (PROTOCOL.md part 3, 4.1 and 4.13), without numbers and versions.
//!
//! Anybody may ask, so the answers say nothing of how many user agents there are, of what exactly
//! is wrong, or of which version runs. The operator's console does.

use super::http::Response;
use super::route::Monitoring;

/// Stands where the main service says its version.
const VERSION: &str = "edgepush";

/// The answer to a monitoring request; `faulty` while the storage refuses to write.
pub fn answer(asked: Monitoring, faulty: bool) -> Response {
    match (asked, faulty) {
        (Monitoring::LoadBalancer, _) => Response::empty(200),
        (Monitoring::Version, _) => {
            let body = format!(r#"{{"build":"","commit":"","source":"","version":"{VERSION}"}}"#);
            Response::json(200, body)
        }
        (Monitoring::Status, false) => {
            Response::json(200, format!(r#"{{"status":"OK","version":"{VERSION}"}}"#))
        }
        (Monitoring::Status, true) => {
            let body = format!(r#"{{"status":"ERROR","version":"{VERSION}","error":"storage"}}"#);
            Response::json(200, body)
        }
        (Monitoring::Heartbeat, false) => Response::json(200, heartbeat("OK", "OK")),
        // Whoever looks at the status alone must see it too.
        (Monitoring::Heartbeat, true) => Response::json(503, heartbeat("ERROR", "NOT OK")),
    }
}

fn heartbeat(status: &str, table: &str) -> String {
    let table = format!(r#"{{"status":"{table}"}}"#);
    format!(
        r#"{{"status":"{status}","version":"{VERSION}","router_table":{table},"message_table":{table},"#
    ) + r#""routers":{"apns":false,"fcm":false}}"#
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_fault_is_told_in_every_answer_that_says_how_it_is() {
        let told = |asked| {
            let Response { status, body, .. } = answer(asked, true);
            (status, body)
        };
        let (status, body) = told(Monitoring::Status);
        assert_eq!(status, 200, "as on the main service");
        assert_eq!(
            body,
            r#"{"status":"ERROR","version":"edgepush","error":"storage"}"#
        );
        let (status, body) = told(Monitoring::Heartbeat);
        assert_eq!(status, 503);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], "ERROR");
        assert_eq!(body["message_table"]["status"], "NOT OK");
        assert_eq!(told(Monitoring::LoadBalancer), (200, String::new()));
        assert_eq!(told(Monitoring::Version).0, 200);
    }
}
