"""What `test_continuous_bernoulli` lends to other tests."""
import math
from fractions import Fraction


def bernoulli_numbers(n):
    numbers = [Fraction(1)]
    for m in range(1, n + 1):
        numbers.append(-sum(math.comb(m + 1, j) * numbers[j] for j in range(m)) / (m + 1))
    return numbers
