"""Published sets of ready-made features: their columns as published, and our classes for their
labels."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Layout:
    """Columns of one published form of a set. Features are numbers and texts; everything else no
    model may see."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    """categories"""
    beside: tuple[str, ...]
    """row numbers, addresses, ephemeral ports, times, free text, and other forms of the label"""
    label: str
    classes: dict[str, str]
    """label, lower case with single spaces for whatever is no letter or digit → class"""
    optional: tuple[str, ...] = ()
    """as `beside`, and not in every copy"""
    header: bool = True
    by_file: bool = False
    """the label column is 0 or 1, and the file's name says which attack a 1 is"""
    features: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", (*self.numbers, *self.texts))

    @property
    def required(self) -> tuple[str, ...]:
        """Columns that a file must have."""
        return (*self.numbers, *self.texts, *self.beside, self.label)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())


def _classes(**labels: str) -> dict[str, str]:
    """`scan="a, b"` → {"a": "scan", "b": "scan"}."""
    return {label: name for name, listed in labels.items() for label in _lines(listed)}


_BINARY = {"0": "benign", "1": "other"}
_KDD = Layout(
    numbers=_words(
        """duration src_bytes dst_bytes land wrong_fragment urgent hot num_failed_logins
        logged_in num_compromised root_shell su_attempted num_root num_file_creations num_shells
        num_access_files num_outbound_cmds is_host_login is_guest_login count srv_count
        serror_rate srv_serror_rate rerror_rate srv_rerror_rate same_srv_rate diff_srv_rate
        srv_diff_host_rate dst_host_count dst_host_srv_count dst_host_same_srv_rate
        dst_host_diff_srv_rate dst_host_same_src_port_rate dst_host_srv_diff_host_rate
        dst_host_serror_rate dst_host_srv_serror_rate dst_host_rerror_rate
        dst_host_srv_rerror_rate"""
    ),
    texts=("protocol_type", "service", "flag"),
    beside=(),
    label="label",
    optional=("difficulty",),
    header=False,
    classes=_classes(
        benign="normal",
        scan="ipsweep, mscan, nmap, portsweep, saint, satan",
        brute_force="guess passwd, snmpguess",
        flood="apache2, back, land, mailbomb, neptune, pod, processtable, smurf, teardrop, "
        "udpstorm",
        command_and_control="httptunnel",
        spreading="worm",
        other="""buffer overflow, ftp write, imap, loadmodule, multihop, named, perl, phf, ps,
        rootkit, sendmail, snmpgetattack, spy, sqlattack, warezclient, warezmaster, xlock,
        xsnoop, xterm""",
    ),
)
_CIC_SAMPLED = _lines(
    """Flow Duration, Total Length of Fwd Packets, Fwd Packet Length Max, Fwd Packet Length Mean,
    Bwd Packet Length Max, Bwd Packet Length Min, Flow IAT Mean, Flow IAT Min, Fwd IAT Min,
    Fwd Header Length, Bwd Header Length, Fwd Packets/s, Bwd Packets/s, Min Packet Length,
    URG Flag Count, Down/Up Ratio, Init_Win_bytes_forward, Init_Win_bytes_backward,
    min_seg_size_forward"""
)
_CIC = _lines(
    """Destination Port, Flow Duration, Total Fwd Packets, Total Backward Packets,
    Total Length of Fwd Packets, Total Length of Bwd Packets, Fwd Packet Length Max,
    Fwd Packet Length Min, Fwd Packet Length Mean, Fwd Packet Length Std, Bwd Packet Length Max,
    Bwd Packet Length Min, Bwd Packet Length Mean, Bwd Packet Length Std, Flow Bytes/s,
    Flow Packets/s, Flow IAT Mean, Flow IAT Std, Flow IAT Max, Flow IAT Min, Fwd IAT Total,
    Fwd IAT Mean, Fwd IAT Std, Fwd IAT Max, Fwd IAT Min, Bwd IAT Total, Bwd IAT Mean,
    Bwd IAT Std, Bwd IAT Max, Bwd IAT Min, Fwd PSH Flags, Bwd PSH Flags, Fwd URG Flags,
    Bwd URG Flags, Fwd Header Length, Bwd Header Length, Fwd Packets/s, Bwd Packets/s,
    Min Packet Length, Max Packet Length, Packet Length Mean, Packet Length Std,
    Packet Length Variance, FIN Flag Count, SYN Flag Count, RST Flag Count, PSH Flag Count,
    ACK Flag Count, URG Flag Count, CWE Flag Count, ECE Flag Count, Down/Up Ratio,
    Average Packet Size, Avg Fwd Segment Size, Avg Bwd Segment Size, Fwd Avg Bytes/Bulk,
    Fwd Avg Packets/Bulk, Fwd Avg Bulk Rate, Bwd Avg Bytes/Bulk, Bwd Avg Packets/Bulk,
    Bwd Avg Bulk Rate, Subflow Fwd Packets, Subflow Fwd Bytes, Subflow Bwd Packets,
    Subflow Bwd Bytes, Init_Win_bytes_forward, Init_Win_bytes_backward, act_data_pkt_fwd,
    min_seg_size_forward, Active Mean, Active Std, Active Max, Active Min, Idle Mean, Idle Std,
    Idle Max, Idle Min"""
)
_CIC_CLASSES = _classes(
    benign="benign",
    scan="portscan",
    brute_force="ftp patator, ssh patator, web attack brute force",
    flood="ddos, dos goldeneye, dos hulk, dos slowhttptest, dos slowloris",
    command_and_control="bot",
    other="heartbleed, infiltration, web attack sql injection, web attack xss",
)
_IOTID_SAMPLED = _words(
    """Dst_Port Flow_Duration TotLen_Fwd_Pkts TotLen_Bwd_Pkts Bwd_Pkt_Len_Max Flow_Byts/s
    Flow_Pkts/s Flow_IAT_Mean Flow_IAT_Std Flow_IAT_Max Flow_IAT_Min Fwd_IAT_Tot Bwd_IAT_Tot
    Bwd_IAT_Mean Bwd_IAT_Std Bwd_IAT_Max Bwd_Header_Len Fwd_Pkts/s Bwd_Pkts/s Pkt_Len_Std
    FIN_Flag_Cnt Pkt_Size_Avg Init_Bwd_Win_Byts Idle_Mean Idle_Max Idle_Min"""
)
_IOTID = _words(
    """Dst_Port Flow_Duration Tot_Fwd_Pkts Tot_Bwd_Pkts TotLen_Fwd_Pkts TotLen_Bwd_Pkts
    Fwd_Pkt_Len_Max Fwd_Pkt_Len_Min Fwd_Pkt_Len_Mean Fwd_Pkt_Len_Std Bwd_Pkt_Len_Max
    Bwd_Pkt_Len_Min Bwd_Pkt_Len_Mean Bwd_Pkt_Len_Std Flow_Byts/s Flow_Pkts/s Flow_IAT_Mean
    Flow_IAT_Std Flow_IAT_Max Flow_IAT_Min Fwd_IAT_Tot Fwd_IAT_Mean Fwd_IAT_Std Fwd_IAT_Max
    Fwd_IAT_Min Bwd_IAT_Tot Bwd_IAT_Mean Bwd_IAT_Std Bwd_IAT_Max Bwd_IAT_Min Fwd_PSH_Flags
    Bwd_PSH_Flags Fwd_URG_Flags Bwd_URG_Flags Fwd_Header_Len Bwd_Header_Len Fwd_Pkts/s Bwd_Pkts/s
    Pkt_Len_Min Pkt_Len_Max Pkt_Len_Mean Pkt_Len_Std Pkt_Len_Var FIN_Flag_Cnt SYN_Flag_Cnt
    RST_Flag_Cnt PSH_Flag_Cnt ACK_Flag_Cnt URG_Flag_Cnt CWE_Flag_Count ECE_Flag_Cnt Down/Up_Ratio
    Pkt_Size_Avg Fwd_Seg_Size_Avg Bwd_Seg_Size_Avg Fwd_Byts/b_Avg Fwd_Pkts/b_Avg Fwd_Blk_Rate_Avg
    Bwd_Byts/b_Avg Bwd_Pkts/b_Avg Bwd_Blk_Rate_Avg Subflow_Fwd_Pkts Subflow_Fwd_Byts
    Subflow_Bwd_Pkts Subflow_Bwd_Byts Init_Fwd_Win_Byts Init_Bwd_Win_Byts Fwd_Act_Data_Pkts
    Fwd_Seg_Size_Min Active_Mean Active_Std Active_Max Active_Min Idle_Mean Idle_Std Idle_Max
    Idle_Min"""
)
_IOTID_BESIDE = _words("Flow_ID Src_IP Src_Port Dst_IP Timestamp")
_UNSW = Layout(
    numbers=_words(
        """dur spkts dpkts sbytes dbytes rate sttl dttl sload dload sloss dloss sinpkt dinpkt
        sjit djit swin stcpb dtcpb dwin tcprtt synack ackdat smean dmean trans_depth
        response_body_len ct_srv_src ct_state_ttl ct_dst_ltm ct_src_dport_ltm ct_dst_sport_ltm
        ct_dst_src_ltm is_ftp_login ct_ftp_cmd ct_flw_http_mthd ct_src_ltm ct_srv_dst
        is_sm_ips_ports"""
    ),
    texts=("proto", "service", "state"),
    beside=("id", "label"),
    label="attack_cat",
    classes=_classes(
        benign="normal",
        scan="reconnaissance",
        flood="dos",
        command_and_control="backdoor, backdoors",
        spreading="worms",
        other="analysis, exploits, fuzzers, generic, shellcode",
    ),
)
_TON = Layout(
    numbers=_words(
        """dst_port duration src_bytes dst_bytes missed_bytes src_pkts src_ip_bytes dst_pkts
        dst_ip_bytes dns_qclass dns_qtype dns_rcode http_request_body_len http_response_body_len
        http_status_code"""
    ),
    texts=_words(
        """proto service conn_state dns_AA dns_RD dns_RA dns_rejected ssl_version ssl_cipher
        ssl_resumed ssl_established http_trans_depth http_method http_version
        http_orig_mime_types http_resp_mime_types weird_name weird_notice"""
    ),
    beside=_words(
        """src_ip src_port dst_ip dns_query ssl_subject ssl_issuer http_uri http_user_agent
        weird_addl label"""
    ),
    label="type",
    optional=("ts",),
    classes=_classes(
        benign="normal",
        scan="scanning",
        brute_force="password",
        flood="ddos, dos",
        command_and_control="backdoor",
        other="injection, mitm, ransomware, xss",
    ),
)
_BOT_CLASSES = _classes(
    benign="normal", scan="reconnaissance", flood="ddos, dos", exfiltration="theft"
)
_BOT_BESIDE = _words("pkSeqID saddr sport daddr dport seq attack subcategory")
_BOT = (
    Layout(
        numbers=_words(
            "stddev N_IN_Conn_P_SrcIP min state_number mean N_IN_Conn_P_DstIP drate srate max"
        ),
        texts=("proto",),
        beside=_BOT_BESIDE,
        label="category",
        classes=_BOT_CLASSES,
    ),
    Layout(
        numbers=_words(
            """pkts bytes dur mean stddev sum min max spkts dpkts sbytes dbytes rate srate drate
            TnBPSrcIP TnBPDstIP TnP_PSrcIP TnP_PDstIP TnP_PerProto TnP_Per_Dport
            AR_P_Proto_P_SrcIP AR_P_Proto_P_DstIP N_IN_Conn_P_DstIP N_IN_Conn_P_SrcIP
            AR_P_Proto_P_Sport AR_P_Proto_P_Dport Pkts_P_State_P_Protocol_P_DestIP
            Pkts_P_State_P_Protocol_P_SrcIP"""
        ),
        texts=("flgs", "proto", "state"),
        beside=(*_BOT_BESIDE, "stime", "ltime", "flgs_number", "proto_number", "state_number"),
        label="category",
        classes=_BOT_CLASSES,
    ),
)
_MQTT_FLOW = _words(
    """num_pkts mean_iat std_iat min_iat max_iat mean_pkt_len std_pkt_len min_pkt_len max_pkt_len
    num_bytes num_psh_flags num_rst_flags num_urg_flags"""
)
_MQTT_BESIDE = _words("ip_src ip_dst prt_src")
_MQTT_CLASSES = _classes(
    benign="normal", scan="scan a, scan su", brute_force="sparta, mqtt bruteforce"
)
_MQTT = (
    Layout(
        ("prt_dst", *_MQTT_FLOW), ("proto",), _MQTT_BESIDE, "is_attack", _MQTT_CLASSES,
        ("mean_offset",), by_file=True,
    ),
    Layout(
        ("prt_dst", *(f"{way}_{name}" for name in _MQTT_FLOW for way in ("fwd", "bwd"))),
        ("proto",), _MQTT_BESIDE, "is_attack", _MQTT_CLASSES,
        ("fwd_mean_offset", "bwd_mean_offset"), by_file=True,
    ),
)  # fmt: skip

SETS: dict[str, tuple[Layout, ...]] = {
    "nslkdd": (_KDD,),
    "cicids2017": (
        Layout(
            _CIC,
            (),
            (),
            "Label",
            _CIC_CLASSES,
            _lines(
                "Fwd Header Length.1, Flow ID, Source IP, Source Port, Destination IP, Protocol, "
                "Timestamp, External IP"
            ),
        ),
        Layout(_CIC_SAMPLED, (), (), "Labelb", _BINARY),
    ),
    "iotid20": (
        Layout(
            _IOTID,
            ("Protocol",),
            (*_IOTID_BESIDE, "Label", "Cat"),
            "Sub_Cat",
            _classes(
                benign="normal",
                scan="scan hostport, scan port os",
                brute_force="mirai hostbruteforceg",
                flood="dos synflooding, mirai ackflooding, mirai http flooding, mirai udp flooding",
                other="mitm arp spoofing",
            ),
        ),
        Layout(_IOTID_SAMPLED, (), _IOTID_BESIDE, "Label", _BINARY),
    ),
    "unsw": (_UNSW,),
    "toniot": (_TON,),
    "botiot": _BOT,
    "mqttiot": _MQTT,
}
"""Name → its published forms: complete, then reduced ones that are about."""
