"""Examples of what operators are answered, as `examples` has them for all."""

from typing import Any, Final

from gateway.openapi import answers, figures, task_answers

_ATTEMPT: Final = {
    "status": 503,
    "error": None,
    "started_at": "2024-01-15T10:30:00.130Z",
    "duration_ms": 12.5,
    "body": "try later",
}
TASK: Final = {
    "task_id": "01a20d7308f71018f81f2a000000",
    "client_id": "my-service-123",
    "queue": "default",
    "state": "retrying",
    "attempts": 1,
    "max_retry": 5,
    "created_at": "2024-01-15T10:30:00.123Z",
    "run_at": None,
    "next_attempt_at": "2024-01-15T10:30:02.400Z",
    "finished_at": None,
    "last_attempt": _ATTEMPT,
    "reason": None,
}
OPERATORS_TASK: Final = {
    **TASK,
    "method": "POST",
    "url": "https://api.example.com/webhook",
    "labels": ["order-4711"],
}
_DETAILED: Final = {
    **OPERATORS_TASK,
    "expires_at": None,
    "timeout": 1800,
    "size": 260,
    "max_concurrent": None,
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "history": [_ATTEMPT],
}
_JOB: Final = {
    "job_id": "job_0123456789abcdef",
    "action": "replay",
    "filter": {"status": 503},
    "dry_run": True,
    "state": "counted",
    "matched": 1200,
    "changed": 0,
    "skipped": 0,
    "looked_at": 45000,
    "created_at": "2024-01-15T10:30:00.000Z",
    "started_at": None,
    "finished_at": None,
    "worker": None,
    "taken_over": 0,
    "address": "10.0.0.7",
    "key": "ADMIN_API_KEY",
    "message": None,
}
_FIGURES: Final = {
    "client_id": "my-service-123",
    "tier": "default",
    "rate_limit": {"max_concurrent": 3, "requests_per_min": 50},
    "paused": False,
    "paused_queues": ["low"],
    "current_usage": 12,
    "remaining": 38,
    "in_flight": 3,
    "queued": 40,
    "queued_bytes": 11200,
    "oldest_waiting": 12.5,
    "scheduled": 7,
    "dead": 2,
    "recent": {"seconds": 300, "ended": 50, "dead": 1},
    "error_rate": 0.02,
    "queues": [
        {"queue": "default", "paused": False, "queued": 38, "in_flight": 3, "oldest_waiting": 12.5},
        {"queue": "low", "paused": True, "queued": 2, "in_flight": 0, "oldest_waiting": 3.1},
    ],
}
_REPLICA: Final = {
    "name": "gateway-1-17-0123abcd",
    "version": "1.0.0",
    "role": "all",
    "started_at": "2024-01-15T10:30:00.000Z",
    "seen_at": "2024-01-15T11:30:00.000Z",
    "uptime": 3600,
    "in_flight": 12,
    "max_in_flight": 1000,
    "lanes": 4,
}
_NODE: Final = {
    "address": "127.0.0.1:6379",
    "ok": True,
    "server": "valkey",
    "version": "9.1.2",
    "latency_ms": 0.12,
    "memory_used_bytes": 5_000_000,
    "memory_max_bytes": 0,
    "persistence": "aof",
    "persistence_ok": True,
    "role": "master",
    "connected_replicas": 1,
    "uptime": 86_400,
    "connections": 12,
    "commands_per_second": 900,
    "keys": 1234,
    "memory_peak_bytes": 9_000_000,
    "memory_policy": "noeviction",
    "fragmentation": 1.1,
    "last_save": None,
    "loading": False,
    "replicas": [{"address": "10.0.0.8:6379", "state": "online", "lag": 0}],
}

_USAGE: Final = {
    "admitted": 120,
    "refused": 8,
    "delivered": 117,
    "failed": 3,
    "duration_p50": 0.018,
    "duration_p95": 0.21,
}

OPERATORS_ANSWERED: Final[dict[type, Any]] = {
    answers.ActiveClients: {"clients": [_FIGURES], "next_cursor": None},
    answers.Figures: _FIGURES,
    answers.Replicas: {"replicas": [_REPLICA]},
    task_answers.DetailedTask: _DETAILED,
    task_answers.Job: _JOB,
    task_answers.JobList: {"jobs": [_JOB]},
    task_answers.PurgedQueue: {"client_id": "my-service-123", "queue": "default", "tasks": 12},
    figures.UsageSteps: {
        "client_id": "my-service-123",
        "step": "hour",
        "from": "2024-01-15T10:00:00Z",
        "to": "2024-01-15T11:00:00Z",
        "points": [{"at": "2024-01-15T10:00:00Z", **_USAGE}],
        "total": _USAGE,
    },
    figures.Candidates: {
        "minutes": 10,
        "since": "2024-01-14T11:00:00Z",
        "candidates": [
            {
                "client_id": "my-service-123",
                "tier": "free",
                "rate_limit": {"max_concurrent": 1, "requests_per_min": 10},
                "refused_minutes": 42,
                "refused": 900,
                "admitted": 300,
                "next_tier": "basic",
            }
        ],
        "count": 1,
    },
    figures.RedisNodes: {"topology": "single", "nodes": [_NODE], "unreachable": []},
}
