// One measurement of llama.cpp in a process of its own, through its public C interface.
//
//   llama_side LIBRARIES quantize IN OUT TYPE        TYPE: f16 q8_0 q4_0 q4_1 q4_k_m
//   llama_side LIBRARIES bench MODEL THREADS SECONDS CASE...
//                                                    CASE: prefill:TOKENS decode:SEQUENCES
//
// Prints one JSON object on one line. Times are per operation: the median of all rounds that fit into SECONDS a case,
// in milliseconds of wall clock, beside the process's CPU time divided by the rounds.
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <llama.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { PAST = 128, SPAN = 64, CONTEXT = 4096, MAX_SEQUENCES = 32, MAX_SAMPLES = 100000 };

static void fail(const char * message) {
    fprintf(stderr, "llama_side: %s\n", message);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

static int ascending(const void * left, const void * right) {
    double a = *(const double *) left, b = *(const double *) right;
    return (a > b) - (a < b);
}

// A field of /proc/self/status in MB.
static double status_mb(const char * field) {
    FILE * file = fopen("/proc/self/status", "r");
    char line[256];
    double mb = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, field, strlen(field)) == 0) {
            mb = strtod(line + strlen(field) + 1, NULL) / 1024.0;
        }
    }
    if (file) {
        fclose(file);
    }
    return mb;
}

// The same pseudo-random ordinary tokens as on the engine's side: what they say does not matter to the speed.
static int32_t token(int position, int vocabulary) {
    uint32_t x = (uint32_t) position * 2654435761u + 12345u;
    return 300 + (int32_t) ((x >> 8) % (uint32_t) (vocabulary - 300));
}

static void quiet(enum ggml_log_level level, const char * text, void * data) {
    (void) data;
    if (level >= GGML_LOG_LEVEL_ERROR || getenv("LLAMA_SIDE_LOG")) {
        fputs(text, stderr);
    }
}

static int quantize(const char * in, const char * out, const char * type) {
    struct llama_model_quantize_params params = llama_model_quantize_default_params();
    params.allow_requantize = true;
    if (strcmp(type, "f16") == 0) {
        params.ftype = LLAMA_FTYPE_MOSTLY_F16;
    } else if (strcmp(type, "q8_0") == 0) {
        params.ftype = LLAMA_FTYPE_MOSTLY_Q8_0;
    } else if (strcmp(type, "q4_0") == 0) {
        params.ftype = LLAMA_FTYPE_MOSTLY_Q4_0;
    } else if (strcmp(type, "q4_1") == 0) {
        params.ftype = LLAMA_FTYPE_MOSTLY_Q4_1;
    } else if (strcmp(type, "q4_k_m") == 0) {
        params.ftype = LLAMA_FTYPE_MOSTLY_Q4_K_M;
    } else {
        fail("the type is not one of f16 q8_0 q4_0 q4_1 q4_k_m");
    }
    return (int) llama_model_quantize(in, out, &params);
}

struct run {
    struct llama_context * context;
    struct llama_batch batch;
    int vocabulary;
    double budget;
    double samples[MAX_SAMPLES];
    int count;
};

static void add(struct run * run, int at, int position, int sequence, bool logits) {
    struct llama_batch * batch = &run->batch;
    int n = batch->n_tokens++;
    batch->token[n] = token(at, run->vocabulary);
    batch->pos[n] = position;
    batch->n_seq_id[n] = 1;
    batch->seq_id[n][0] = sequence;
    batch->logits[n] = logits;
}

// One pass over the batch, its logits ready at the end; returns seconds and empties the batch.
static double step(struct run * run) {
    double start = seconds(CLOCK_MONOTONIC);
    if (llama_decode(run->context, run->batch) != 0) {
        fail("llama_decode failed");
    }
    volatile float first = llama_get_logits_ith(run->context, -1)[0];
    (void) first;
    run->batch.n_tokens = 0;
    return seconds(CLOCK_MONOTONIC) - start;
}

static double prompt(struct run * run, int tokens, int sequence) {
    for (int i = 0; i < tokens; i++) {
        add(run, i, i, sequence, i + 1 == tokens);
    }
    return step(run);
}

static double decode_step(struct run * run, int sequences, int past) {
    for (int s = 0; s < sequences; s++) {
        add(run, past + s, past, s, true);
    }
    return step(run);
}

static void keep(struct run * run, double sample) {
    if (run->count < MAX_SAMPLES) {
        run->samples[run->count++] = sample;
    }
}

static void measure_prefill(struct run * run, int tokens) {
    double end = seconds(CLOCK_MONOTONIC) + run->budget;
    do {
        llama_memory_clear(llama_get_memory(run->context), false);
        keep(run, prompt(run, tokens, 0));
    } while (seconds(CLOCK_MONOTONIC) < end);
}

static void measure_decode(struct run * run, int sequences) {
    llama_memory_t memory = llama_get_memory(run->context);
    llama_memory_clear(memory, false);
    for (int s = 0; s < sequences; s++) {
        prompt(run, PAST, s);
    }
    decode_step(run, sequences, PAST);
    double end = seconds(CLOCK_MONOTONIC) + run->budget;
    do {
        for (int s = 0; s < sequences; s++) {
            llama_memory_seq_rm(memory, s, PAST, -1);
        }
        for (int i = 0; i < SPAN; i++) {
            keep(run, decode_step(run, sequences, PAST + i));
        }
    } while (seconds(CLOCK_MONOTONIC) < end);
}

static void report(struct run * run, const char * name, double cpu) {
    qsort(run->samples, (size_t) run->count, sizeof(double), ascending);
    printf(", \"%s\": {\"ms\": %.3f, \"best_ms\": %.3f, \"cpu_ms\": %.3f, \"rounds\": %d}", name,
           run->samples[run->count / 2] * 1e3, run->samples[0] * 1e3, cpu / run->count * 1e3, run->count);
    fflush(stdout);
}

static struct ggml_threadpool * threadpool(int threads) {
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    struct ggml_threadpool * (*create)(struct ggml_threadpool_params *) =
        (struct ggml_threadpool * (*) (struct ggml_threadpool_params *) )
            ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(device), "ggml_threadpool_new");
    if (!create) {
        fail("no thread pool in this build");
    }
    struct ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    return create(&params);
}

static enum llama_flash_attn_type flash_attention(void) {
    const char * wanted = getenv("LLAMA_SIDE_FLASH");
    if (!wanted || strcmp(wanted, "auto") == 0) {
        return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
    return strcmp(wanted, "on") == 0 ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
}

static void open_model(struct run * run, const char * path, int threads, int sequences) {
    double start = seconds(CLOCK_MONOTONIC);
    struct llama_model * model = llama_model_load_from_file(path, llama_model_default_params());
    if (!model) {
        fail("the model does not load");
    }
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = CONTEXT;
    params.n_seq_max = (uint32_t) sequences;
    params.n_batch = 2048;
    params.n_threads = threads;
    params.n_threads_batch = threads;
    params.flash_attn_type = flash_attention();
    params.kv_unified = getenv("LLAMA_SIDE_UNIFIED") != NULL;
    run->context = llama_init_from_model(model, params);
    if (!run->context) {
        fail("no context");
    }
    llama_attach_threadpool(run->context, threadpool(threads), NULL);
    run->vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    run->batch = llama_batch_init(4096, 0, 1);
    printf("{\"side\": \"llama.cpp %s\", \"threads\": %d, \"load_ms\": %.1f", llama_version(), threads,
           (seconds(CLOCK_MONOTONIC) - start) * 1e3);
}

int main(int argc, char ** argv) {
    if (argc < 6) {
        fail("usage: llama_side LIBRARIES quantize IN OUT TYPE | llama_side LIBRARIES bench MODEL THREADS SECONDS CASE...");
    }
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    llama_backend_init();
    if (strcmp(argv[2], "quantize") == 0) {
        return quantize(argv[3], argv[4], argv[5]);
    }
    int sequences = 1;
    for (int i = 6; i < argc; i++) {
        int wanted = strncmp(argv[i], "decode:", 7) == 0 ? atoi(argv[i] + 7) : 1;
        sequences = wanted > sequences ? wanted : sequences;
    }
    static struct run run;
    run.budget = atof(argv[5]);
    open_model(&run, argv[3], atoi(argv[4]), sequences);
    for (int i = 6; i < argc; i++) {
        int amount = strchr(argv[i], ':') ? atoi(strchr(argv[i], ':') + 1) : 0;
        if (amount < 1) {
            fail("a case is prefill:TOKENS or decode:SEQUENCES");
        }
        run.count = 0;
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        if (strncmp(argv[i], "prefill:", 8) == 0) {
            measure_prefill(&run, amount);
        } else if (strncmp(argv[i], "decode:", 7) == 0) {
            measure_decode(&run, amount);
        } else {
            fail("a case is prefill:TOKENS or decode:SEQUENCES");
        }
        report(&run, argv[i], seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
    printf(", \"rss_mb\": %.1f, \"peak_mb\": %.1f, \"file_mb\": %.1f}\n", status_mb("VmRSS"), status_mb("VmHWM"),
           status_mb("RssFile"));
    return 0;
}
