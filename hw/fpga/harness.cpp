// Runs one program on the accelerator: a job on standard input, the outcome on standard output, both as 64-bit words and bytes.
//
//   job:     latency, cycles per beat, limit of cycles, program's address (vectors), its chunks, bytes of memory, memory
//   outcome: status (0 done, 1 the accelerator reports an error, 2 limit reached, 3 request outside of the memory), cycles,
//            for load, compute, store: how many words were taken, when; how many were done, when; then the memory
//
// The memory is a pipe: bursts move in the order of their requests, reads and writes alike; the first beat not before `latency` cycles
// after the request, then one every `cycles per beat`. BLOCK and BUS, in bytes, come from the command line.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <vector>

#include "Vaccelerator.h"
#include "verilated.h"

namespace {

struct Burst {
    uint64_t ready;
    uint64_t byte;
    uint32_t beats;
    bool write;
    bool fetch;
};

struct Job {
    uint64_t latency, pace, limit, address, chunks, size;
};

enum Status : uint64_t { kDone = 0, kError = 1, kLimit = 2, kOutside = 3 };

struct Events {
    std::vector<uint64_t> taken[3], done[3];

    void note(uint64_t cycle, uint32_t issue, uint32_t retire) {
        for (int unit = 0; unit < 3; ++unit) {
            if (issue >> unit & 1) taken[unit].push_back(cycle);
            if (retire >> unit & 1) done[unit].push_back(cycle);
        }
    }
};

class Memory {
  public:
    Memory(const Job& job, std::vector<uint8_t>& bytes) : job_(job), bytes_(bytes) {}

    // What the port shows in this cycle.
    void drive(Vaccelerator& top, uint64_t cycle) {
        open_ = !bursts_.empty() && cycle >= bursts_.front().ready && cycle >= next_;
        const bool reads = open_ && !bursts_.front().write;
        top.request_ready = 1;
        top.read_valid = reads;
        top.read_fetch = reads && bursts_.front().fetch;
        top.write_ready = open_ && bursts_.front().write;
        if (reads) std::memcpy(&top.read_data, &bytes_[bursts_.front().byte], BUS);
    }

    // What happens at the end of the cycle; false if a request lies outside.
    bool clock(Vaccelerator& top, uint64_t cycle) {
        if (open_) {
            Burst& burst = bursts_.front();
            const bool moves = burst.write ? top.write_valid : top.read_ready;
            if (moves) {
                if (burst.write) std::memcpy(&bytes_[burst.byte], &top.write_data, BUS);
                burst.byte += BUS;
                next_ = cycle + job_.pace;
                if (--burst.beats == 0) bursts_.pop_front();
            }
        }
        if (top.request_valid) {
            const uint64_t byte = uint64_t{top.request_address} * BLOCK, size = uint64_t{top.request_beats} * BUS;
            if (size == 0 || byte + size > bytes_.size()) return false;
            bursts_.push_back({cycle + job_.latency, byte, uint32_t(top.request_beats), bool(top.request_write),
                               bool(top.request_fetch)});
        }
        return true;
    }

  private:
    const Job& job_;
    std::vector<uint8_t>& bytes_;
    std::deque<Burst> bursts_;
    uint64_t next_ = 0;
    bool open_ = false;
};

void tick(Vaccelerator& top) {
    top.clk = 1;
    top.eval();
    top.clk = 0;
}

Status run(Vaccelerator& top, const Job& job, std::vector<uint8_t>& bytes, Events& events, uint64_t& cycle) {
    Memory memory(job, bytes);
    top.clk = 0;
    top.reset = 1;
    top.eval();
    for (int i = 0; i < 4; ++i) tick(top);
    top.reset = 0;
    top.program_address = uint32_t(job.address);
    top.program_chunks = uint16_t(job.chunks);
    for (cycle = 0; cycle < job.limit; ++cycle) {
        top.start = cycle == 0;
        memory.drive(top, cycle);
        top.eval();
        if (cycle > 0 && top.done) return top.error ? kError : kDone;
        events.note(cycle, top.issue, top.retire);
        if (!memory.clock(top, cycle)) return kOutside;
        tick(top);
    }
    return kLimit;
}

bool get(void* data, size_t size) { return std::fread(data, 1, size, stdin) == size; }

void put(const void* data, size_t size) { std::fwrite(data, 1, size, stdout); }

}  // namespace

int main() {
    Job job;
    if (!get(&job, sizeof job)) return 1;
    std::vector<uint8_t> bytes(job.size);
    if (!get(bytes.data(), bytes.size())) return 1;
    VerilatedContext context;
    Vaccelerator top(&context);
    Events events;
    uint64_t cycles = 0;
    const uint64_t status = run(top, job, bytes, events, cycles);
    top.final();
    put(&status, sizeof status);
    put(&cycles, sizeof cycles);
    for (int unit = 0; unit < 3; ++unit)
        for (const auto* list : {&events.taken[unit], &events.done[unit]}) {
            const uint64_t count = list->size();
            put(&count, sizeof count);
            put(list->data(), count * sizeof(uint64_t));
        }
    put(bytes.data(), bytes.size());
    return std::fflush(stdout) == 0 ? 0 : 1;
}
