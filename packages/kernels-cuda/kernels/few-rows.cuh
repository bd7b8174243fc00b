// Products x W^T of up to eight rows of x, with the norm before them, and what comes after.
#pragma once
#include "overlap.cuh"

const int mostRows = 8;

struct FewRows {
  const void* x;           // rows of k elements
  const float* norm;       // weight of an rmsNorm of x; none where x is taken as it is
  const int* row;          // [rows], which of `length` rows of x each takes; its own where left out
  const void* weights[2];  // [n, k]
  const void* addend;      // [rows, n[0]], of the dtype of the first result
  void* results[2];        // [rows, n]
  Fault* fault;
  int faultNode;
  int n[2], isWide[2], weightPitch[2];  // results are float where wide, else as x
  int rows, k, xPitch, length, depth, isGate;
  float epsilon;
};
