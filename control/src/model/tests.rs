//! aks-engine's rules, each broken once.
//!
//! In: a model that holds, and one change to it. Out: the one fault, to the letter, with its
//! path and position. Never: a test of what the plan decides; see `plan/tests.rs`.

use proptest::prelude::*;

use super::*;

/// A model that names everything the rules look at.
const GOOD: &str = r#"{
  "apiVersion": "vlabs",
  "properties": {
    "featureFlags": { "enableTelemetry": true },
    "orchestratorProfile": {
      "orchestratorType": "Kubernetes",
      "orchestratorRelease": "1.18",
      "kubernetesConfig": {
        "networkPlugin": "azure",
        "networkPolicy": "calico",
        "clusterSubnet": "10.240.0.0/12",
        "serviceCidr": "10.0.0.0/16",
        "dnsServiceIP": "10.0.0.10",
        "dockerBridgeSubnet": "172.17.0.1/16",
        "kubeletConfig": { "--max-pods": "30" },
        "maxPods": 30
      }
    },
    "masterProfile": {
      "count": 1,
      "vnetSubnetID": "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/virtualNetworks/V/subnets/masters",
      "vnetCidr": "10.10.0.0/16",
      "firstConsecutiveStaticIP": "10.10.0.5"
    },
    "agentPoolProfiles": [
      {
        "name": "first",
        "count": 2,
        "vnetSubnetID": "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/virtualNetworks/V/subnets/agents"
      },
      {
        "name": "second",
        "count": 1,
        "vnetSubnetID": "/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/virtualNetworks/V/subnets/agents"
      }
    ],
    "linuxProfile": { "adminUsername": "me" }
  }
}
"#;

fn faults_of(text: &str, plugin: Option<Plugin>) -> Vec<String> {
    let mut report = Report::default();
    let model = Document::parse("m.json".to_owned(), text.as_bytes(), &mut report)
        .and_then(|document| check_model(&document, plugin, &mut report));
    let faults = report.finish(&["m.json"]).err();
    assert!(
        model.is_some() || faults.is_some(),
        "no model without a fault"
    );
    faults
        .into_iter()
        .flatten()
        .map(|fault| fault.to_string())
        .collect()
}

/// `GOOD` after changes of one text each.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is in the model");
        text.replacen(from, to, 1)
    })
}

/// Line and column of a text within another.
fn position(text: &str, of: &str) -> String {
    let at = text
        .find(of)
        .unwrap_or_else(|| panic!("{of} is in the model"));
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    format!(
        "{}:{}",
        text[..at].matches('\n').count() + 1,
        at - start + 1
    )
}

const CONFIG: &str = "properties.orchestratorProfile.kubernetesConfig";
const K: &str = "OrchestratorProfile.KubernetesConfig";
const DUAL: (&str, &str) = ("\"enableTelemetry\": true", "\"enableIPv6DualStack\": true");
const ONLY: (&str, &str) = ("\"enableTelemetry\": true", "\"enableIPv6Only\": true");
const KUBENET: (&str, &str) = (
    "\"networkPlugin\": \"azure\"",
    "\"networkPlugin\": \"kubenet\"",
);
const NO_POLICY: (&str, &str) = ("\"networkPolicy\": \"calico\"", "\"networkPolicy\": \"\"");

/// One rule: the changes that break it, the text its place starts with, the path (after
/// `kubernetesConfig` where it starts with a dot), and the message (`K` stands for
/// `OrchestratorProfile.KubernetesConfig`).
type Rule = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
    &'static str,
);

const ORCHESTRATOR_RULES: &[Rule] = &[
    (
        &[("vlabs", "2017-07-01")],
        "\"apiVersion\"",
        "apiVersion",
        "unrecognized APIVersion '2017-07-01'",
    ),
    (
        &[("\"Kubernetes\"", "\"DCOS\"")],
        "\"orchestratorType\"",
        "properties.orchestratorProfile.orchestratorType",
        "OrchestratorType has unknown orchestrator: DCOS",
    ),
    (
        &[("\"1.18\"", "\"one\"")],
        "\"orchestratorRelease\"",
        "properties.orchestratorProfile.orchestratorRelease",
        "could not validate version one",
    ),
    (
        &[
            NO_POLICY,
            KUBENET,
            (
                "\"enableTelemetry\": true",
                "\"enableIPv6DualStack\": true, \"enableIPv6Only\": true",
            ),
        ],
        "\"enableIPv6Only\"",
        "properties.featureFlags.enableIPv6Only",
        "featureFlags.EnableIPv6DualStack and featureFlags.EnableIPv6Only can't be enabled at the same time",
    ),
    (
        &[NO_POLICY, KUBENET, DUAL, ("1.18", "1.15")],
        "\"enableIPv6DualStack\"",
        "properties.featureFlags.enableIPv6DualStack",
        "IPv6 dual stack not available in kubernetes version 1.15",
    ),
    (
        &[
            NO_POLICY,
            DUAL,
            ("\"networkPlugin\": \"azure\"", "\"networkPlugin\": \"\""),
        ],
        "\"kubernetesConfig\"",
        "",
        "K.NetworkPlugin '' is invalid. IPv6 dual stack supported only with 'kubenet' and 'azure'",
    ),
    (
        &[DUAL],
        "\"networkPolicy\"",
        ".networkPolicy",
        "Network policy calico is not supported for azure cni dualstack",
    ),
    (
        &[NO_POLICY, KUBENET, ONLY, ("1.18", "1.17")],
        "\"enableIPv6Only\"",
        "properties.featureFlags.enableIPv6Only",
        "IPv6 single stack not available in kubernetes version 1.17",
    ),
    (
        &[NO_POLICY, ONLY],
        "\"networkPlugin\"",
        ".networkPlugin",
        "K.NetworkPlugin 'azure' is invalid. IPv6 single stack supported only with kubenet",
    ),
    (
        &[("10.240.0.0/12", "10.240.0.0/12,fc00::/48")],
        "\"clusterSubnet\"",
        ".clusterSubnet",
        "K.ClusterSubnet '10.240.0.0/12,fc00::/48' is an invalid subnet",
    ),
    (
        &[
            NO_POLICY,
            DUAL,
            ("10.240.0.0/12", "10.0.0.0/8,fc00::/48,fd00::/48"),
        ],
        "\"clusterSubnet\"",
        ".clusterSubnet",
        "K.ClusterSubnet '10.0.0.0/8,fc00::/48,fd00::/48' is an invalid subnet. Not more than 2 subnets for ipv6 dual stack",
    ),
    (
        &[NO_POLICY, DUAL, ("10.240.0.0/12", "10.0.0.0/8,fc00::")],
        "\"clusterSubnet\"",
        ".clusterSubnet",
        "K.ClusterSubnet 'fc00::' is an invalid subnet",
    ),
    (
        &[("10.240.0.0/12", "10.240.0.0/24")],
        "\"clusterSubnet\"",
        ".clusterSubnet",
        "K.ClusterSubnet '10.240.0.0/24' must reserve at least 9 bits for nodes",
    ),
    (
        &[("172.17.0.1/16", "172.17.0.1")],
        "\"dockerBridgeSubnet\"",
        ".dockerBridgeSubnet",
        "K.DockerBridgeSubnet '172.17.0.1' is an invalid subnet",
    ),
    (
        &[("\"maxPods\": 30", "\"maxPods\": 4")],
        "\"maxPods\"",
        ".maxPods",
        "K.MaxPods '4' must be at least 5",
    ),
    (
        &[("\"maxPods\": 30", "\"maxPods\": -1")],
        "\"maxPods\"",
        ".maxPods",
        "K.MaxPods '-1' must be at least 5",
    ),
    (
        &[(
            "\"--max-pods\": \"30\"",
            "\"--non-masquerade-cidr\": \"all\"",
        )],
        "\"--non-masquerade-cidr\"",
        ".kubeletConfig.--non-masquerade-cidr",
        "--non-masquerade-cidr kubelet config 'all' is an invalid CIDR string",
    ),
    (
        &[(
            "\"kubeletConfig\": { \"--max-pods\": \"30\" }",
            "\"controllerManagerConfig\": { \"--route-reconciliation-period\": \"10\" }",
        )],
        "\"--route-reconciliation-period\"",
        ".controllerManagerConfig.--route-reconciliation-period",
        "--route-reconciliation-period '10' is not a valid duration",
    ),
    (
        &[("\"dnsServiceIP\": \"10.0.0.10\",", "")],
        "\"serviceCidr\"",
        ".serviceCidr",
        "K.DNSServiceIP must be specified when ServiceCidr is",
    ),
    (
        &[("\"serviceCidr\": \"10.0.0.0/16\",", "")],
        "\"dnsServiceIP\"",
        ".dnsServiceIP",
        "K.ServiceCidr must be specified when DNSServiceIP is",
    ),
    (
        &[("10.0.0.10", "ten")],
        "\"dnsServiceIP\"",
        ".dnsServiceIP",
        "K.DNSServiceIP 'ten' is an invalid IP address",
    ),
    (
        &[
            NO_POLICY,
            DUAL,
            ("10.0.0.0/16", "10.0.0.0/16,fd00::/108,fd01::/108"),
        ],
        "\"serviceCidr\"",
        ".serviceCidr",
        "K.ServiceCidr '10.0.0.0/16,fd00::/108,fd01::/108' is an invalid CIDR subnet. More than 2 CIDRs not allowed for dualstack",
    ),
    (
        &[("10.0.0.0/16", "10.0.0.0/99")],
        "\"serviceCidr\"",
        ".serviceCidr",
        "K.ServiceCidr '10.0.0.0/99' is an invalid CIDR subnet",
    ),
    (
        &[("10.0.0.10", "10.1.0.10")],
        "\"dnsServiceIP\"",
        ".dnsServiceIP",
        "K.DNSServiceIP '10.1.0.10' is not within the ServiceCidr '10.0.0.0/16'",
    ),
    (
        &[("10.0.0.10", "10.0.255.255")],
        "\"dnsServiceIP\"",
        ".dnsServiceIP",
        "K.DNSServiceIP '10.0.255.255' cannot be the broadcast address of ServiceCidr '10.0.0.0/16'",
    ),
    (
        &[("10.0.0.10", "10.0.0.1")],
        "\"dnsServiceIP\"",
        ".dnsServiceIP",
        "K.DNSServiceIP '10.0.0.1' cannot be the first IP of ServiceCidr '10.0.0.0/16'",
    ),
    (
        &[("\"maxPods\": 30", "\"kubeProxyMode\": \"userspace\"")],
        "\"kubeProxyMode\"",
        ".kubeProxyMode",
        "Invalid KubeProxyMode userspace. Allowed modes are iptables and ipvs",
    ),
    (
        &[
            NO_POLICY,
            DUAL,
            ("1.18", "1.17"),
            ("\"maxPods\": 30", "\"kubeProxyMode\": \"iptables\""),
        ],
        "\"kubeProxyMode\"",
        ".kubeProxyMode",
        "KubeProxyMode iptables in dualstack not supported with 1.17 version",
    ),
    (
        &[("\"azure\"", "\"weave\"")],
        "\"networkPlugin\"",
        ".networkPlugin",
        "unknown networkPlugin 'weave' specified",
    ),
    (
        &[NO_POLICY, ("\"azure\"", "\"flannel\"")],
        "\"networkPlugin\"",
        ".networkPlugin",
        "networkPlugin 'flannel': Tapline serves azure and kubenet only",
    ),
    (
        &[("calico", "cilium"), ("\"azure\"", "\"cilium\"")],
        "\"networkPlugin\"",
        ".networkPlugin",
        "networkPlugin 'cilium': Tapline serves azure and kubenet only",
    ),
    (
        &[("calico", "antrea"), ("\"azure\"", "\"antrea\"")],
        "\"networkPlugin\"",
        ".networkPlugin",
        "networkPlugin 'antrea': Tapline serves azure and kubenet only",
    ),
    (
        &[("calico", "cilium"), ("\"azure\"", "\"\"")],
        "\"networkPolicy\"",
        ".networkPolicy",
        "networkPlugin 'cilium': Tapline serves azure and kubenet only",
    ),
    (
        &[("calico", "moat")],
        "\"networkPolicy\"",
        ".networkPolicy",
        "unknown networkPolicy 'moat' specified",
    ),
    (
        &[("calico", "azure"), ("1.18", "1.7")],
        "\"networkPolicy\"",
        ".networkPolicy",
        "networkPolicy azure requires kubernetes version of 1.8 or higher",
    ),
    (
        &[(
            "\"name\": \"second\"",
            "\"osType\": \"Windows\", \"name\": \"second\"",
        )],
        "\"networkPolicy\"",
        ".networkPolicy",
        "networkPolicy 'calico' is not supporting windows agents",
    ),
    (
        &[("calico", "azure"), KUBENET],
        "\"networkPolicy\"",
        ".networkPolicy",
        "networkPolicy 'azure' is not supported with networkPlugin 'kubenet'",
    ),
    (
        &[("calico", "none")],
        "\"networkPolicy\"",
        ".networkPolicy",
        "networkPolicy 'none' is not supported with networkPlugin 'azure'",
    ),
    (
        &[("\"maxPods\": 30", "\"networkMode\": \"tunnel\"")],
        "\"networkMode\"",
        ".networkMode",
        "unknown networkMode 'tunnel' specified",
    ),
    (
        &[
            KUBENET,
            ("\"maxPods\": 30", "\"networkMode\": \"transparent\""),
        ],
        "\"networkMode\"",
        ".networkMode",
        "networkMode requires network plugin to be 'azure'",
    ),
    (
        &[("\"maxPods\": 30", "\"networkMode\": \"bridge\"")],
        "\"networkMode\"",
        ".networkMode",
        "networkMode 'bridge' is not supported by calico",
    ),
    (
        &[
            NO_POLICY,
            ("\"maxPods\": 30", "\"networkMode\": \"bridge\""),
            (
                "\"name\": \"second\"",
                "\"distro\": \"flatcar\", \"name\": \"second\"",
            ),
        ],
        "\"networkMode\"",
        ".networkMode",
        "Flatcar node pools require 'transparent' networkMode with Azure CNI",
    ),
    (
        &[(
            "\"maxPods\": 30",
            "\"containerRuntime\": \"kata-containers\"",
        )],
        "\"containerRuntime\"",
        ".containerRuntime",
        "unknown containerRuntime \"kata-containers\" specified",
    ),
    (
        &[
            ("1.18", "1.24.0"),
            ("\"maxPods\": 30", "\"containerRuntime\": \"docker\""),
        ],
        "\"containerRuntime\"",
        ".containerRuntime",
        "Docker runtime is no longer supported for v1.24+ clusters, use containerd containerRuntime value instead",
    ),
    (
        &[("\"--max-pods\": \"30\"", "\"--max-pods\": \"lots\"")],
        "\"--max-pods\"",
        ".kubeletConfig.--max-pods",
        "--max-pods 'lots' is not a positive whole number",
    ),
    (
        &[("\"maxPods\": 30", "\"podCidr\": \"10.0.0.0/8\"")],
        "\"podCidr\"",
        ".podCidr",
        "Unknown JSON tag podCidr",
    ),
];

const PROFILE_RULES: &[Rule] = &[
    (
        &[("\"count\": 1,\n      \"vnet", "\"count\": 2,\n      \"vnet")],
        "\"count\": 2,\n      \"v",
        "properties.masterProfile.count",
        "MasterProfile count needs to be 1, 3, or 5",
    ),
    (
        &[("\"count\": 1,\n      \"vnet", "\"vnet")],
        "\"masterProfile\"",
        "properties.masterProfile.count",
        "MasterProfile count needs to be 1, 3, or 5",
    ),
    (
        &[("\"vnetCidr\"", "\"ipAddressCount\": 257, \"vnetCidr\"")],
        "\"ipAddressCount\"",
        "properties.masterProfile.ipAddressCount",
        "MasterProfile.IPAddressCount needs to be in the range [1,256]",
    ),
    (
        &[("\"count\": 2", "\"count\": 1001")],
        "\"count\": 1001",
        "properties.agentPoolProfiles[0].count",
        "AgentPoolProfile count needs to be in the range [1,1000]",
    ),
    (
        &[("\"count\": 2", "\"count\": 2, \"ipAddressCount\": -1")],
        "\"ipAddressCount\"",
        "properties.agentPoolProfiles[0].ipAddressCount",
        "AgentPoolProfile.IPAddressCount needs to be in the range [1,256]",
    ),
    (
        &[("\"name\": \"second\",", "")],
        "{\n        \n",
        "properties.agentPoolProfiles[1].name",
        "missing Properties.AgentPoolProfiles[1].Name",
    ),
    (
        &[("\"second\"", "\"Second\"")],
        "\"name\": \"Second\"",
        "properties.agentPoolProfiles[1].name",
        "pool name 'Second' is invalid. A pool name must start with a lowercase letter, have max length of 12, and only have characters a-z0-9",
    ),
    (
        &[("\"second\"", "\"first\""), ("\"first\"", "\"first\" ")],
        "\"name\": \"first\",",
        "properties.agentPoolProfiles[1].name",
        "profile name 'first' already exists, profile names must be unique across pools",
    ),
    (
        &[(
            "\"name\": \"first\"",
            "\"osType\": \"BeOS\", \"name\": \"first\"",
        )],
        "\"osType\"",
        "properties.agentPoolProfiles[0].osType",
        "AgentPoolProfile.osType must be either Linux or Windows",
    ),
    (
        &[(
            "\"name\": \"first\"",
            "\"availabilityProfile\": \"AvailabilitySet\", \"name\": \"first\"",
        )],
        "{\n        \"name\": \"second\"",
        "properties.agentPoolProfiles[1]",
        "mixed mode availability profiles are not allowed. Please set either VirtualMachineScaleSets or AvailabilitySet in availabilityProfile for all agent pools",
    ),
    (
        &[(
            "\"firstConsecutiveStaticIP\": \"10.10.0.5\"",
            "\"availabilityProfile\": \"VirtualMachineScaleSets\"",
        )],
        "\"masterProfile\"",
        "properties.masterProfile.agentVnetSubnetID",
        "when master profile is using VirtualMachineScaleSets and is custom vnet, set \"vnetsubnetid\" and \"agentVnetSubnetID\" for master profile",
    ),
    (
        &[(
            "\"vnetCidr\"",
            "\"availabilityProfile\": \"VirtualMachineScaleSets\", \"agentVnetSubnetID\": \"x\", \"vnetCidr\"",
        )],
        "\"firstConsecutiveStaticIP\"",
        "properties.masterProfile.firstConsecutiveStaticIP",
        "when masterProfile's availabilityProfile is VirtualMachineScaleSets and a vnetSubnetID is specified, the firstConsecutiveStaticIP should be empty and will be determined by an offset from the first IP in the vnetCidr",
    ),
    (
        &[("\"adminUsername\"", "\"eth0MTU\": 9000, \"adminUsername\"")],
        "\"eth0MTU\"",
        "properties.linuxProfile.eth0MTU",
        "Invalid linuxProfile eth0MTU value \"9000\", please use one of the following values: 1500, 3900",
    ),
    (
        &[
            KUBENET,
            ("\"adminUsername\"", "\"eth0MTU\": 3900, \"adminUsername\""),
        ],
        "\"eth0MTU\"",
        "properties.linuxProfile.eth0MTU",
        "Custom linuxProfile eth0MTU value not allowed when using Kubenet",
    ),
    (
        &[(
            "\"name\": \"first\"",
            "\"enableVMSSNodePublicIP\": true, \"availabilityProfile\": \"VirtualMachineScaleSets\", \"name\": \"first\"",
        )],
        "\"enableVMSSNodePublicIP\"",
        "properties.agentPoolProfiles[0].enableVMSSNodePublicIP",
        "You have enabled VMSS node public IP in agent pool first, but you did not specify Basic Load Balancer SKU",
    ),
    (
        &[(
            "\"count\": 2,\n        \"vnetSubnetID\": \"/subscriptions",
            "\"count\": 2,\n        \"fqdn\": \"/subscriptions",
        )],
        "{\n        \"name\": \"first\"",
        "properties.agentPoolProfiles[0].vnetSubnetID",
        "Multiple VNET Subnet configurations specified.  The master profile and each agent pool profile must all specify a custom VNET Subnet, or none at all",
    ),
    (
        &[("V/subnets/agents", "W/subnets/agents")],
        "\"vnetSubnetID\": \"/subscriptions/S/resourceGroups/R/providers/Microsoft.Network/virtualNetworks/W",
        "properties.agentPoolProfiles[0].vnetSubnetID",
        "Multiple VNETS specified.  The master profile and each agent pool must reference the same VNET (but it is ok to reference different subnets on that VNET)",
    ),
    (
        &[("/subscriptions/S", "/Subscriptions/S")],
        "\"vnetSubnetID\"",
        "properties.masterProfile.vnetSubnetID",
        "Unable to parse vnetSubnetID. Please use a vnetSubnetID with format /subscriptions/SUB_ID/resourceGroups/RG_NAME/providers/Microsoft.Network/virtualNetworks/VNET_NAME/subnets/SUBNET_NAME",
    ),
    (
        &[("10.10.0.5", "10.10.0")],
        "\"firstConsecutiveStaticIP\"",
        "properties.masterProfile.firstConsecutiveStaticIP",
        "MasterProfile.FirstConsecutiveStaticIP (with VNET Subnet specification) '10.10.0' is an invalid IP address",
    ),
    (
        &[(",\n      \"firstConsecutiveStaticIP\": \"10.10.0.5\"", "")],
        "\"masterProfile\"",
        "properties.masterProfile.firstConsecutiveStaticIP",
        "MasterProfile.FirstConsecutiveStaticIP (with VNET Subnet specification) '' is an invalid IP address",
    ),
    (
        &[("10.10.0.0/16", "10.10")],
        "\"vnetCidr\"",
        "properties.masterProfile.vnetCidr",
        "MasterProfile.VnetCidr '10.10' contains invalid cidr notation",
    ),
    (
        &[("\"count\": 2,", "\"count\": \"2\",")],
        "\"count\": \"2\"",
        "properties.agentPoolProfiles[0].count",
        "expected a whole number, found text",
    ),
    (
        &[("\"--max-pods\": \"30\"", "\"--max-pods\": \"256\"")],
        "\"masterProfile\"",
        "properties.masterProfile",
        "256 pods and the node itself need 257 addresses; a NIC holds 256",
    ),
];

#[test]
fn the_good_model_holds() {
    assert_eq!(faults_of(GOOD, None), Vec::<String>::new());
}

#[test]
fn every_rule_has_its_message_its_path_and_its_position() {
    for (changes, needle, path, message) in ORCHESTRATOR_RULES.iter().chain(PROFILE_RULES) {
        let text = changed(changes);
        let path = match path {
            path if path.is_empty() || path.starts_with('.') => format!("{CONFIG}{path}"),
            path => (*path).to_owned(),
        };
        let message = message
            .strip_prefix('K')
            .filter(|rest| rest.starts_with('.'))
            .map_or_else(|| (*message).to_owned(), |rest| format!("{K}{rest}"));
        let fault = format!("m.json:{}: {path}: {message}", position(&text, needle));
        let found = faults_of(&text, None);
        assert!(found.contains(&fault), "wanted {fault}\nfound {found:#?}");
        if message.starts_with("expected") || message.contains("256 pods") {
            continue; // A count that cannot be read is out of its range, too; all profiles share a limit.
        }
        assert_eq!(found.len(), 1, "one fault for {message}: {found:#?}");
    }
}

#[test]
fn two_broken_fields_are_two_faults_in_the_order_of_the_text() {
    let text = changed(&[
        ("\"count\": 2", "\"count\": 0"),
        ("10.0.0.0/16", "10.0.0.0"),
        ("\"count\": 1,\n      \"vnet", "\"count\": 4,\n      \"vnet"),
    ]);
    let found = faults_of(&text, None);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("m.json:12:9: ") && found[0].contains("ServiceCidr"));
    assert!(found[1].starts_with("m.json:20:7: ") && found[1].contains("MasterProfile count"));
    assert!(found[2].starts_with("m.json:28:9: ") && found[2].contains("AgentPoolProfile count"));
}

#[test]
fn a_model_without_properties_or_masters_says_so() {
    assert_eq!(
        faults_of("{\"apiVersion\": \"vlabs\"}", None),
        ["m.json:1:1: properties: missing ContainerService Properties"]
    );
    assert_eq!(
        faults_of("{\"apiVersion\": \"vlabs\", \"properties\": {}}", None),
        ["m.json:1:25: properties.masterProfile: missing Properties.MasterProfile"]
    );
}

#[test]
fn the_override_drops_what_only_the_other_plugin_has() {
    let text = changed(&[
        ("calico", "azure"),
        ("\"maxPods\": 30", "\"networkMode\": \"bridge\""),
        ("\"adminUsername\"", "\"eth0MTU\": 3900, \"adminUsername\""),
    ]);
    let mut report = Report::default();
    let document = Document::parse("m.json".to_owned(), text.as_bytes(), &mut report).unwrap();
    let model = check_model(&document, Some(Plugin::Kubenet), &mut report).unwrap();
    assert_eq!((model.plugin, model.mtu), (Plugin::Kubenet, 1500));
    assert!(model.policy.is_none());
    let warnings = report.finish(&[]).unwrap();
    let messages: Vec<&str> = warnings.iter().map(Warning::message).collect();
    assert_eq!(
        messages,
        [
            "networkPolicy 'azure' is dropped: kubenet does not have it",
            "networkMode 'bridge' is dropped: only azure has it",
            "eth0MTU 3900 is dropped: only azure has it",
        ]
    );
}

#[test]
fn the_override_keeps_a_policy_that_both_plugins_have_and_forgives_no_unknown_one() {
    assert!(faults_of(GOOD, Some(Plugin::Kubenet)).is_empty());
    let unknown = changed(&[("calico", "moat")]);
    assert_eq!(faults_of(&unknown, Some(Plugin::Kubenet)).len(), 1);
}

#[test]
fn plugin_and_policy_left_out_are_read_as_aks_engine_reads_them() {
    for (plugin, policy, means) in [
        ("", "", (Plugin::Azure, None)),
        ("", "azure", (Plugin::Azure, None)),
        ("", "none", (Plugin::Kubenet, None)),
        ("", "calico", (Plugin::Azure, Some(Policy::Calico))),
        ("", "antrea", (Plugin::Azure, Some(Policy::Antrea))),
        ("azure", "azure", (Plugin::Azure, Some(Policy::Azure))),
        ("kubenet", "calico", (Plugin::Kubenet, Some(Policy::Calico))),
    ] {
        let text = GOOD.replace("\"azure\"", &format!("\"{plugin}\""));
        let text = text.replace("calico", policy);
        let mut report = Report::default();
        let document = Document::parse("m.json".to_owned(), text.as_bytes(), &mut report).unwrap();
        let model = check_model(&document, None, &mut report).unwrap();
        assert_eq!(
            (model.plugin, model.policy.map(|policy| policy.value)),
            means
        );
    }
}

/// JSON of any shape, with keys that the model knows among the others.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[-0-9a-f.:/,]{0,20}".prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "apiVersion",
            "properties",
            "orchestratorProfile",
            "kubernetesConfig",
            "masterProfile",
            "agentPoolProfiles",
            "linuxProfile",
            "featureFlags",
            "count",
            "name",
            "clusterSubnet",
            "serviceCidr",
            "kubeletConfig",
            "vnetSubnetID",
            "resources",
            "type",
            "addressSpace",
            "addressPrefixes",
            "subnets",
            "variables",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|members| { serde_json::Value::Object(members.into_iter().collect()) }),
        ]
    })
}

fn survive(bytes: &[u8]) {
    let mut report = Report::default();
    if let Some(document) = Document::parse("m.json".to_owned(), bytes, &mut report) {
        let _ = check_model(&document, None, &mut report);
        let _ = check_template(&document, &mut report);
    }
    let _ = report
        .finish(&["m.json"])
        .map_err(|faults| faults.to_string());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(&bytes);
    }

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        survive(value.to_string().as_bytes());
    }

    #[test]
    fn a_model_with_any_piece_replaced_is_read_or_refused(
        start in 0..GOOD.len(),
        length in 0_usize..40,
        piece in "[]\\[{},:\"0-9a-z./-]{0,12}",
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (start + length).min(bytes.len());
        bytes.splice(start..end, piece.bytes());
        survive(&bytes);
    }
}
