#!/bin/sh
# Obeys the worker protocol of src/bench/step_bench.h without a model.
# FAKE_NAME   is written, a line per step, to the file FAKE_LOG
# FAKE_MS     "900 10 30 20": what the steps report, the last one is repeated;
#             "count": the number of lines in FAKE_LOG; "stopped": 1 + the processes of the parent
#             that are stopped
# FAKE_BYTES  what "memory" reports; FAKE_PRECISION, FAKE_FLOPS, FAKE_GFLOPS likewise
# FAKE_FAULT  what goes wrong at step FAKE_AT, counted from 1:
#             exit | kill | garbage | hang | error | nonumber; at the start: silent
fault=${FAKE_FAULT:-none} at=${FAKE_AT:-1} step=0
gemm=false
[ -n "$FAKE_GFLOPS" ] && gemm=true
[ "$fault" = silent ] && exec sleep 600
echo "warming up $FAKE_NAME" >&2
printf '{"ready": true, "provider": "fake", "scheme": "s", "precision": "%s", "layers": 3, "width": 8,' \
  "${FAKE_PRECISION:-fp32}"
printf ' "batch": 2, "context": 50, "parameters": 1234, "flops_per_step": %s, "gemm": %s}\n' \
  "${FAKE_FLOPS:-null}" "$gemm"
set -- ${FAKE_MS:-10}
while read -r line; do
  case $line in
    step)
      step=$((step + 1))
      [ -n "$FAKE_LOG" ] && echo "$FAKE_NAME" >>"$FAKE_LOG"
      if [ "$step" -eq "$at" ]; then
        case $fault in
          exit) echo "something is very wrong" >&2; exit 7 ;;
          kill) kill -KILL $$ ;;
          garbage) echo "Segmentation fault (core dumped)"; continue ;;
          hang) exec sleep 600 ;;
          error) echo '{"error": "the loss is not finite"}'; exit 1 ;;
          nonumber) echo '{"ms": "fast", "loss": 1}'; continue ;;
        esac
      fi
      ms=$1
      [ "$ms" = count ] && ms=$(($(wc -l <"$FAKE_LOG")))
      [ "$ms" = stopped ] &&
        ms=$(($(cat /proc/[0-9]*/stat 2>/dev/null | grep -c ") T $PPID ") + 1))
      echo "{\"ms\": $ms, \"loss\": 2.5}"
      [ $# -gt 1 ] && shift ;;
    memory) echo "{\"peak_rss_bytes\": ${FAKE_BYTES:-1000}}" ;;
    gemm) echo "{\"gflops\": $FAKE_GFLOPS}" ;;
    quit) exit 0 ;;
  esac
done
