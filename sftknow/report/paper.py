"""The paper's published figures that stand beside this report's findings, LLaMA-3-8B unless said otherwise."""

PAPER: dict[str, str] = {
    "low-mastery": (
        "Table 2, LLaMA-3-8B, 1,920 samples, in domain: 45.47% after tuning on bucket 0, 53.93% after bucket 4 "
        "(57.53% after bucket 2); out of domain 46.24% and 50.25%."
    ),
    "more-harms": (
        "Table 4, LLaMA-3-8B, bucket 0, unrestored: 55.33% with 240 samples and 44.96% with 1,920 in domain, 52.37% "
        "and 49.40% out of domain."
    ),
    "concentration": (
        "Table 3, LLaMA-3-8B, 1,920 samples of bucket 0: the top 5% carry 82.24% of all r; Table 4: undoing the top "
        "20% moves accuracy in domain from 44.96% to 54.81% after bucket 0, from 55.22% to 58.66% after bucket 4."
    ),
    "restoration": (
        "Table 4, LLaMA-3-8B, 1,920 samples, in domain: 44.96% to 54.81% at 20% and 55.44% at 40% after bucket 0, then "
        "1.48% at 60%; after bucket 4 from 55.22% to 58.66% at 20%."
    ),
}
