//! SimplePush, as the devices and application servers of its time speak it: PROTOCOL.md part 2.
//!
//! Which test holds which rule; `clients` holds them together, as clients of the era use them.
//!
//! | rule | tests |
//! |---|---|
//! | R1 | `websocket_of_a_device_opens_on_the_root_on_aerogears_path_and_on_any_free_one` |
//! | R2 | `sub_protocol_push_notification_is_answered_where_offered_and_no_other` |
//! | R3 | `origin_of_any_form_is_let_in` |
//! | R4 | `json_in_a_binary_frame_is_taken_from_a_device_and_from_nobody_else` |
//! | R5 | `message_type_is_read_in_any_case_and_the_keys_are_not` |
//! | R6 | `hello_without_a_usable_name_gets_a_new_one_and_one_that_is_no_text_is_refused` |
//! | R7 | `unknown_name_without_channels_is_adopted_in_its_own_spelling`, `unknown_name_with_channels_or_of_webpush_is_replaced_so_that_it_registers_again` |
//! | R8 | `known_name_is_kept_whatever_channels_it_lists` |
//! | R9 | `device_that_lists_more_channels_than_it_may_have_starts_again_with_nothing` |
//! | R10 | `hello_is_answered_with_name_and_status_and_what_waited_comes_in_its_own_frame` |
//! | R11 | `second_hello_of_the_same_or_no_name_is_answered_with_all_that_was_not_acked`, `second_hello_brings_what_only_memory_holds` |
//! | R12 | `newest_websocket_of_a_device_wins_and_the_older_is_closed` |
//! | R13 | `device_that_says_no_hello_in_time_is_closed` |
//! | R14 | `ping_of_every_form_is_answered_before_and_after_hello`, `before_hello_every_other_message_is_answered_with_401_and_closed` |
//! | R15 | `pings_may_come_as_quickly_as_the_configuration_says` |
//! | R16 | `register_takes_a_uuid_in_any_spelling_echoes_it_and_may_come_twice` |
//! | R17 | `register_without_a_uuid_is_answered_with_itself_and_401_and_closed`, `one_subscription_too_many_is_429_and_the_websocket_stays_open` |
//! | R18 | `unregister_of_any_text_is_200_and_without_one_401` |
//! | R19 | `ack_in_every_form_is_taken_and_has_no_answer`, `ack_clears_its_channel_up_to_its_version_and_no_other` |
//! | R20 | `ack_of_the_aerogear_java_client_without_type_and_list_is_taken_and_never_closes` |
//! | R21 | `notification_has_one_update_when_live_and_all_that_wait_at_hello`, `everything_that_waits_for_many_channels_comes_in_one_frame` |
//! | R22 | `every_update_is_forwarded_while_the_device_is_here_and_the_highest_is_kept`, `fifty_updates_at_once_all_come` |
//! | R23 | `update_is_not_repeated_for_another_ones_ack_but_after_the_interval_and_on_reconnect` |
//! | R24 | `update_for_a_device_that_is_here_is_200_and_comes_with_its_version`, `update_for_a_device_that_is_away_is_202_or_what_the_configuration_says`, `version_that_is_none_is_400_whether_the_device_is_here_or_not`, `token_that_is_not_ours_is_404_and_a_channel_that_has_ended_410`, `data_of_4096_bytes_travels_with_its_version_and_one_byte_more_is_413`, `other_methods_are_405_and_a_web_page_is_told_what_it_may_do`, `unregister_drops_what_was_not_acked`, `update_for_a_full_queue_is_429_unless_it_takes_the_place_of_another` |
//! | R25 | `version_that_nobody_names_is_the_time_in_seconds`, `version_in_the_query_is_taken_where_the_body_names_none` |
//! | R26 | `version_that_nobody_names_is_higher_than_all_before_it_whatever_happened_in_between`, `version_that_nobody_names_is_higher_after_a_kill_than_a_burst_before_it` |
//! | R27 | in tests/tls.rs: TLS is not SimplePush's own |
//! | R28 | `idle_device_is_let_go_of_and_woken_by_datagrams_until_it_is_back`, `device_that_names_another_address_than_its_own_is_treated_as_any_other`, `device_in_another_network_or_without_the_option_or_of_webpush_is_never_let_go_of`, `device_that_sleeps_over_a_kill_is_woken_for_what_waits_and_for_what_comes`, `what_is_refused_wakes_nobody` |

#![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)] // a test may do both
#![allow(unreachable_pub, reason = "a module of tests is nobody's library")]
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "anything else fails the test"
)]

mod support;

#[path = "simplepush/clients.rs"]
mod clients;
#[path = "simplepush/delivery.rs"]
mod delivery;
#[path = "simplepush/device.rs"]
mod device;
#[path = "simplepush/endpoint.rs"]
mod endpoint;
#[path = "simplepush/hello.rs"]
mod hello;
#[path = "simplepush/translation.rs"]
mod translation;
#[path = "simplepush/udp.rs"]
mod udp;
#[path = "simplepush/websocket.rs"]
mod websocket;

const MODULES: &[&str] = &[
    include_str!("simplepush/delivery.rs"),
    include_str!("simplepush/endpoint.rs"),
    include_str!("simplepush/hello.rs"),
    include_str!("simplepush/udp.rs"),
    include_str!("simplepush/websocket.rs"),
];

#[test]
fn table_of_rules_is_whole_and_names_tests_that_are_there_under_their_rule() {
    let table = include_str!("simplepush.rs");
    let rows: Vec<(&str, &str)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("//! | R"))
        .map(|row| row.split_once(" | ").unwrap())
        .collect();
    let rules: Vec<String> = rows.iter().map(|(rule, _)| (*rule).to_owned()).collect();
    let expected: Vec<String> = (1..=28).map(|rule| rule.to_string()).collect();
    assert_eq!(rules, expected);
    for (rule, tests) in rows {
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty() || rule == "27", "R{rule} has no test");
        for name in names {
            let head = format!("#[test]\nfn {name}() {{");
            let before = MODULES.iter().find_map(|module| {
                let (before, _) = module.split_once(&head)?;
                Some(before)
            });
            let before = before.unwrap_or_else(|| panic!("no test {name}"));
            let comment = before.rsplit("\n\n").next().unwrap();
            assert!(comment.contains(&format!("R{rule}")), "{name}: {comment}");
        }
    }
}
